package api_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
)

func TestConsistency(t *testing.T) {
	b := newBench(t) // its view is 3 s old
	if r := b.do("POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.1"}`); r.status != http.StatusCreated {
		t.Fatal(r.text)
	}
	for _, tc := range []struct {
		name, query string
		status      int
		text        string
	}{
		{"default", "", 200, ""},
		{"local", "?consistency=local", 200, ""},
		{"linearizable", "?consistency=linearizable", 200, ""},
		{"young enough", "?consistency=stale&max_age=10s", 200, ""},
		{"too old", "?consistency=stale&max_age=1s", 503, "urn:fluid:behind"},
		{"max_age alone", "?max_age=1s", 400, "query.max_age"},
		{"no such consistency", "?consistency=strong", 400, "query.consistency"},
		{"wait alone", "?wait=1s", 400, "query.wait"},
		{"no index", "?index=x", 400, "query.index"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := b.in(t).do("GET", "/v1/services/web"+tc.query, "")
			if r.status != tc.status || !strings.Contains(r.text, tc.text) {
				t.Errorf("got %d %s, want %d with %q", r.status, r.text, tc.status, tc.text)
			}
		})
	}
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	if r := b.do("GET", "/v1/services/web?consistency=linearizable", ""); r.status != http.StatusServiceUnavailable {
		t.Errorf("linearizable without a leader: got %d %s", r.status, r.text)
	}
	if r := b.do("GET", "/v1/services/web", ""); r.status != http.StatusOK {
		t.Errorf("local without a leader: got %d %s", r.status, r.text)
	}
}

func TestLongPoll(t *testing.T) {
	b := newBench(t)
	first := b.do("POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.1"}`).header.Get("X-Fluid-Index")

	poll := func(query string) <-chan reply {
		ch := make(chan reply, 1)
		go func() { ch <- b.do("GET", "/v1/services/web"+query, "") }()
		return ch
	}
	get := func(ch <-chan reply) reply {
		t.Helper()
		select {
		case r := <-ch:
			return r
		case <-time.After(20 * time.Second):
			t.Fatal("no answer")
			return reply{}
		}
	}

	// Something newer than the index is answered at once.
	if r := get(poll("?index=0&wait=1m")); r.status != http.StatusOK {
		t.Errorf("index 0: got %d %s", r.status, r.text)
	}
	// Nothing newer: after the wait, the same again.
	if r := get(poll("?index=" + first + "&wait=20ms")); r.header.Get("X-Fluid-Index") != first {
		t.Errorf("no change: got %d %v", r.status, r.header)
	}
	// A change of another service does not end the wait, one of this does.
	ch := poll("?index=" + first + "&wait=1m")
	b.do("POST", "/v1/apps", `{"appId":"other","ip":"10.0.0.2"}`)
	second := b.do("POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.3"}`).header.Get("X-Fluid-Index")
	r := get(ch)
	var s api.Service
	b.into(r, &s)
	if len(s.Instances) != 2 || r.header.Get("X-Fluid-Index") != second {
		t.Errorf("after a change: got %v %+v", r.header, s)
	}
	// An index that this agent has not reached is not answered with less.
	ahead, err := strconv.Atoi(second)
	if err != nil {
		t.Fatal(err)
	}
	if r := get(poll("?index=" + strconv.Itoa(ahead+100) + "&wait=20ms")); r.status != http.StatusServiceUnavailable || !strings.Contains(r.text, "urn:fluid:behind") {
		t.Errorf("ahead: got %d %s", r.status, r.text)
	}
	if r := get(poll("?index=9:1&wait=20ms")); r.status != http.StatusServiceUnavailable {
		t.Errorf("a later generation: got %d %s", r.status, r.text)
	}
	// The removal of the service is a change.
	ch = poll("?index=1:" + second + "&wait=1m")
	b.do("DELETE", "/v1/apps/web", "")
	if r := get(ch); r.status != http.StatusNotFound {
		t.Errorf("removed: got %d %s", r.status, r.text)
	}
	// A service that does not exist yet is waited for.
	now := b.do("GET", "/v1/services", "").header.Get("X-Fluid-Index")
	ch = poll("?index=" + now + "&wait=1m")
	b.do("POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.4"}`)
	if r := get(ch); r.status != http.StatusOK {
		t.Errorf("made: got %d %s", r.status, r.text)
	}
}

// A stopping agent answers those who wait.
func TestLongPollStops(t *testing.T) {
	stopping := make(chan struct{})
	b := newBench(t, func(c *api.Config) { c.Stopping = stopping })
	index := b.do("POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.1"}`).header.Get("X-Fluid-Index")
	done := make(chan reply, 1)
	go func() { done <- b.do("GET", "/v1/services/web?index="+index+"&wait=5m", "") }()
	close(stopping)
	select {
	case r := <-done:
		if r.status != http.StatusOK {
			t.Errorf("got %d %s", r.status, r.text)
		}
	case <-time.After(20 * time.Second):
		t.Error("still waiting")
	}
}

func TestWaitEverywhere(t *testing.T) {
	b := newBench(t)
	for _, tc := range []struct{ name, method, path, body string }{
		{"register", "POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.1"}`},
		{"batch", "POST", "/v1/apps", `[{"appId":"web","ip":"10.0.0.2"}]`},
		{"overlay", "POST", "/v1/overlays", `{"kind":"drain","service":"web"}`},
		{"config", "PUT", "/v1/services/web/config", `{"ttl":"5s"}`},
		{"instance", "DELETE", "/v1/apps/web/instances/10.0.0.1", ""},
		{"service", "DELETE", "/v1/apps/web", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := b.in(t).do(tc.method, tc.path+"?wait=everywhere&timeout=3s", tc.body)
			var got api.Spread
			if err := json.Unmarshal([]byte(strings.Trim(r.text, "[]")), &got); err != nil {
				t.Fatal(err)
			}
			if r.status/100 != 2 || !got.Everywhere || got.ClientTTL != "5s" || !strings.Contains(r.text, `"lagging":[]`) {
				t.Errorf("got %d %s", r.status, r.text)
			}
		})
	}
	if r := b.do("DELETE", "/v1/apps/web?wait=everywhere&timeout=2h", ""); r.status != http.StatusBadRequest || !strings.Contains(r.text, "query.timeout") {
		t.Errorf("timeout: got %d %s", r.status, r.text)
	}
}
