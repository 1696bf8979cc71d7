package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
)

// events reads n events of a stream and ends it.
func (b *bench) events(query string, header map[string]string, n int, act func()) (ids []string, out []api.Event) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/v1/watch"+query, nil)
	if err != nil {
		b.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		b.Fatalf("got %d %s", resp.StatusCode, ct)
	}
	act()
	for sc := bufio.NewScanner(resp.Body); len(out) < n && sc.Scan(); {
		if id, ok := strings.CutPrefix(sc.Text(), "id: "); ok {
			ids = append(ids, id)
		}
		if data, ok := strings.CutPrefix(sc.Text(), "data: "); ok {
			var ev api.Event
			if err := json.Unmarshal([]byte(data), &ev); err != nil {
				b.Fatal(err)
			}
			out = append(out, ev)
		}
	}
	return ids, out
}

func TestWatch(t *testing.T) {
	b := newBench(t)
	start := b.store.State().Position().String()
	ids, got := b.events("", nil, 3, func() {
		b.do("POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.1"}`)
		b.do("DELETE", "/v1/apps/web/instances/10.0.0.1", "")
	})
	seen := map[string]bool{}
	for _, ev := range got {
		key := ev.Kind + " " + ev.Service + " " + ev.ID
		if ev.Deleted {
			key += " deleted"
		}
		seen[key] = true
	}
	if !seen["instance web 10.0.0.1 deleted"] || !seen["service web "] {
		t.Errorf("got %+v", got)
	}

	// Resumed after the first event of the past, the rest comes again.
	_, again := b.events("?after="+start, nil, 2, func() {})
	if len(again) != 2 || !again[len(again)-1].Deleted {
		t.Errorf("from the start: got %+v", again)
	}
	last := ids[len(ids)-1]
	_, next := b.events("", map[string]string{"Last-Event-ID": last}, 1, func() {
		b.do("POST", "/v1/overlays", `{"kind":"drain","service":"web"}`)
	})
	if len(next) != 1 || next[0].Kind != "overlay" {
		t.Errorf("after %s: got %+v", last, next)
	}
	// A past that is not known any more is said, not skipped.
	_, reset := b.events("?after=9:1", nil, 1, func() {})
	if len(reset) != 1 || reset[0].Kind != "reset" {
		t.Errorf("got %+v", reset)
	}
	if r := b.do("GET", "/v1/watch?after=x", ""); r.status != http.StatusBadRequest {
		t.Errorf("got %d %s", r.status, r.text)
	}
}

func TestPrometheusSD(t *testing.T) {
	b := newBench(t)
	b.do("POST", "/v1/apps", `[{"appId":"web","ip":"10.0.0.1","port":80,"ports":{"metrics":9100},"tags":["b","a"],"meta":{"team-x":"y"}},
		{"appId":"web","ips":["10.0.0.2","fd00::2"],"port":81},{"appId":"web","ip":"10.0.0.3"},{"appId":"db","host":"db.example.org","port":5432}]`)
	b.do("POST", "/v1/overlays", `{"kind":"drain","service":"web","instance":"10.0.0.3"}`)
	var got []api.TargetGroup
	r := b.do("GET", "/v1/sd/prometheus", "")
	b.into(r, &got)
	var targets []string
	for _, g := range got {
		targets = append(targets, strings.Join(g.Targets, ","))
	}
	if want := "db.example.org:5432 10.0.0.1:80 10.0.0.2:81,[fd00::2]:81"; strings.Join(targets, " ") != want {
		t.Errorf("got %q, want %q", targets, want)
	}
	for k, want := range map[string]string{
		"__meta_fluid_service": "web", "__meta_fluid_tags": ",a,b,", "__meta_fluid_meta_team_x": "y", "__meta_fluid_port_metrics": "9100",
	} {
		if got := got[1].Labels[k]; got != want {
			t.Errorf("%s: got %q, want %q", k, got, want)
		}
	}
}

// What one commit changed comes again, all of it, after an id in its midst.
func TestWatchResumesWhole(t *testing.T) {
	b := newBench(t)
	start := b.store.State().Position().String()
	if r := b.do("POST", "/v1/apps", `[{"appId":"web","ip":"10.0.0.1"},{"appId":"web","ip":"10.0.0.2"},{"appId":"web","ip":"10.0.0.3"}]`); r.status != http.StatusCreated {
		t.Fatal(r.text)
	}
	for read := 1; read <= 4; read++ {
		ids, first := b.events("?after="+start, nil, read, func() {})
		seen := map[string]bool{}
		for _, ev := range first {
			seen[ev.Kind+ev.ID] = true
		}
		if read < 4 {
			_, rest := b.events("", map[string]string{"Last-Event-ID": ids[len(ids)-1]}, 4, func() {})
			for _, ev := range rest {
				seen[ev.Kind+ev.ID] = true
			}
		}
		if len(seen) != 4 {
			t.Errorf("resumed after %d: got only %v", read, seen)
		}
	}
}

// Members, servers and gossip are watched, too.
func TestWatchAround(t *testing.T) {
	var mu sync.Mutex // guards what follows
	state, version, wake := "alive", 1, make(chan struct{})
	b := newBench(t, func(c *api.Config) {
		c.Members = func() []api.Member {
			mu.Lock()
			defer mu.Unlock()
			return []api.Member{{ID: "dns-1", Name: "host-dns", Role: "dns", State: state}}
		}
		c.News = func(since string) ([]string, string, bool, <-chan struct{}) {
			mu.Lock()
			defer mu.Unlock()
			now := fmt.Sprintf("boot-%d", version)
			if since == "" || since == now {
				return nil, now, true, wake
			}
			old := make(chan struct{})
			close(old)
			return []string{"cache"}, now, since == "boot-1", old
		}
	})
	ids, got := b.events("", nil, 2, func() {
		mu.Lock()
		defer mu.Unlock()
		state, version = "dead", 2
		close(wake)
		wake = make(chan struct{})
	})
	want := []api.Event{{Kind: "service", Service: "cache", Tier: "gossip"}, {Kind: "member", ID: "dns-1", Name: "host-dns", State: "dead"}}
	for i := range got {
		got[i].Generation, got[i].Index = 0, 0
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	// Who was away hears what is not as it was; who was not hears nothing twice.
	mu.Lock()
	state = "alive"
	mu.Unlock()
	_, again := b.events("?after="+ids[1], nil, 1, func() {})
	if len(again) != 1 || again[0].Kind != "member" || again[0].State != "alive" {
		t.Errorf("resumed: got %+v", again)
	}
	_, reset := b.events("?after="+strings.Replace(ids[1], "boot-2", "boot-0", 1), nil, 3, func() {})
	if len(reset) != 3 || reset[2].Kind != "reset" {
		t.Errorf("after gossip that is not known any more: got %+v", reset)
	}
}
