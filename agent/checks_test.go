package agent_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

// patient is a server whose health a test decides.
func patient(t *testing.T) (url string, ill *atomic.Bool) {
	ill = &atomic.Bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if ill.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, ill
}

func health(t *testing.T, c *api.Client, service, id, want string) {
	t.Helper()
	eventually(t, service+"/"+id+" "+want, func() bool {
		s, err := c.Service(t.Context(), service, api.Filter{})
		for _, in := range s.Instances {
			if in.ID == id {
				return err == nil && in.Status == want && in.Answered == (want == "passing")
			}
		}
		return false
	})
}

// An ephemeral instance has the status that its checks find, also after a
// restart, until an operator says otherwise.
func TestChecks(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	url, ill := patient(t)
	ill.Store(true)
	const path = "/v1/services/web/instances/10.0.0.5"
	body := fmt.Sprintf(`{"ip":"10.0.0.5","checks":[{"http":%q,"interval":"50ms"},{"tcp":%q,"interval":"50ms"}]}`, url, strings.TrimPrefix(url, "http://"))
	if code, text := put(t, a, "PUT", path, body); code != 201 {
		t.Fatalf("got %d %s", code, text)
	}
	if in := instance(t, c, "web", "10.0.0.5"); in.Status != "critical" || in.Answered {
		t.Errorf("answered before it was probed: %+v", in)
	}
	ill.Store(false)
	health(t, c, "web", "10.0.0.5", "passing")
	if code, text := put(t, a, "PUT", path, body); code != 200 || instance(t, c, "web", "10.0.0.5").Status != "passing" {
		t.Errorf("the same again: got %d %s", code, text)
	}
	ill.Store(true)
	health(t, c, "web", "10.0.0.5", "critical")

	stop(t, a)
	a = start(t, cfg)
	c = client(t, a, "")
	leading(t, c)
	ill.Store(false)
	health(t, c, "web", "10.0.0.5", "passing")
	put(t, a, "PUT", path+"/status", `{"status":"maintenance"}`)
	ill.Store(true)
	health(t, c, "web", "10.0.0.5", "maintenance")
	put(t, a, "PUT", path+"/status", `{"status":"passing"}`)
	health(t, c, "web", "10.0.0.5", "critical")
	if code, text := put(t, a, "PUT", path, `{"ip":"10.0.0.5"}`); code != 200 {
		t.Errorf("without checks: got %d %s", code, text)
	}
	health(t, c, "web", "10.0.0.5", "passing")
}

// A heartbeat keeps an instance passing, and alive.
func TestHeartbeatRenews(t *testing.T) {
	a := start(t, testConfig(t))
	c := client(t, a, "")
	leading(t, c)
	const path = "/v1/services/web/instances/"
	if code, text := put(t, a, "PUT", path+"10.0.0.5", `{"ip":"10.0.0.5","checks":[{"ttl":"3s"}]}`); code != 201 {
		t.Fatalf("got %d %s", code, text)
	}
	if in := instance(t, c, "web", "10.0.0.5"); in.Status != "passing" {
		t.Errorf("a registration is a sign of life: got %+v", in)
	}
	health(t, c, "web", "10.0.0.5", "critical")
	if code, text := put(t, a, "PUT", path+"10.0.0.5/heartbeat", ""); code != 200 {
		t.Errorf("heartbeat: got %d %s", code, text)
	}
	health(t, c, "web", "10.0.0.5", "passing")

	if code, text := put(t, a, "PUT", path+"10.0.0.6", `{"ip":"10.0.0.6","expires":"1h"}`); code != 201 {
		t.Fatalf("got %d %s", code, text)
	}
	before := instance(t, c, "web", "10.0.0.6").ExpiresAt
	eventually(t, "a later end of its life", func() bool { // shown in seconds
		put(t, a, "PUT", path+"10.0.0.6/heartbeat", "")
		return instance(t, c, "web", "10.0.0.6").ExpiresAt > before
	})
}

// A critical instance is checked by the agent of its node, and removed once it
// was ill for as long as it may be.
func TestChecksOfCritical(t *testing.T) {
	a := start(t, testConfig(t))
	c := client(t, a, "")
	leading(t, c)
	url, ill := patient(t)
	app := func(node string, weight uint16, deregisterAfter string) api.App {
		return api.App{AppID: "web", Target: api.Target{
			IP: "10.0.0.5", Node: node, Weight: &weight, Checks: []api.Check{{HTTP: url, Interval: "50ms", DeregisterAfter: deregisterAfter}},
		}}
	}
	if _, err := c.Register(t.Context(), []api.App{app("elsewhere", 1, "")}, nil); !errors.Is(err, api.ErrInvalid) || !strings.Contains(err.Error(), "agent of the node, elsewhere") {
		t.Errorf("on another node: %v", err)
	}
	if _, err := c.Register(t.Context(), []api.App{app("", 1, "")}, nil); err != nil {
		t.Fatal(err)
	}
	if in := instance(t, c, "web", "10.0.0.5"); in.Node != "node1" {
		t.Errorf("node: got %+v", in)
	}
	health(t, c, "web", "10.0.0.5", "passing")
	ill.Store(true)
	health(t, c, "web", "10.0.0.5", "critical")
	// Committed anew by somebody else, it is as ill as before.
	b, err := json.Marshal(app("node1", 7, ""))
	if err != nil {
		t.Fatal(err)
	}
	if code, text := put(t, a, "POST", "/v1/apps", string(b)); code != 200 {
		t.Errorf("anew: got %d %s", code, text)
	}
	if in := instance(t, c, "web", "10.0.0.5"); in.Status != "critical" || in.Weight != 7 {
		t.Errorf("anew: got %+v", in)
	}
	if _, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.5", Node: "node1"}}}, nil); err != nil {
		t.Fatal(err)
	}
	health(t, c, "web", "10.0.0.5", "passing") // nobody looks any more
	if _, err := c.Register(t.Context(), []api.App{app("", 7, "1s")}, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the removal", func() bool {
		s, err := c.Service(t.Context(), "web", api.Filter{})
		return errors.Is(err, store.ErrNotFound) || err == nil && len(s.Instances) == 0
	})
}

// What was checked here and registered anew on another node meanwhile stays.
func TestRemoveOfAnother(t *testing.T) {
	a := start(t, testConfig(t))
	c := client(t, a, "")
	leading(t, c)
	for _, node := range []string{"node1", "node2"} {
		if _, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{ID: "web-1", IP: "10.0.0.5", Node: node}}}, nil); err != nil {
			t.Fatal(err)
		}
		if err := a.RemoveOnce(t.Context(), "web", "web-1"); err != nil {
			t.Errorf("%s: %v", node, err)
		}
		s, err := c.Service(t.Context(), "web", api.Filter{})
		if err != nil || (len(s.Instances) == 1) != (node == "node2") {
			t.Errorf("%s: got %+v, %v", node, s.Instances, err)
		}
	}
}

// What an operator says while a check finds something else stays.
func TestOperatorGoesFirst(t *testing.T) {
	a := start(t, testConfig(t))
	c := client(t, a, "")
	leading(t, c)
	if _, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.5", Node: "node1"}}}, nil); err != nil {
		t.Fatal(err)
	}
	if code, text := put(t, a, "PUT", "/v1/services/db/instances/10.0.0.5", `{"ip":"10.0.0.5"}`); code != 201 {
		t.Fatalf("got %d %s", code, text)
	}
	set := func(service, status string) {
		if _, err := a.EditOwn(api.Edit{Service: service, ID: "10.0.0.5", Status: status}); err != nil {
			t.Errorf("%s: %v", service, err)
		}
	}
	for _, service := range []string{"web", "db"} {
		for i := range 20 {
			found := []record.Status{record.Critical, record.Passing}[i%2]
			set(service, []string{"warning", "critical"}[i/2%2])
			var both sync.WaitGroup
			both.Go(func() { set(service, "maintenance") })
			both.Go(func() { a.Checked(service, "10.0.0.5", found) })
			both.Wait()
			a.Checked(service, "10.0.0.5", found)
			if in := instance(t, c, service, "10.0.0.5"); in.Status != "maintenance" {
				t.Fatalf("%s, round %d: a check that found %s made it %s", service, i, found, in.Status)
			}
		}
	}
}

// A batch with checks is written down, and ended, as a whole.
func TestChecksOfBatch(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	batch := func(checks ...api.Check) {
		t.Helper()
		apps := make([]api.App, 200)
		for i := range apps {
			apps[i] = api.App{AppID: "web", Target: api.Target{IP: fmt.Sprintf("10.0.0.%d", i), Node: "node1", Checks: checks}}
		}
		if _, err := c.Register(t.Context(), apps, nil); err != nil {
			t.Fatal(err)
		}
	}
	kept := func() int {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(cfg.DataDir, "checks.json"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), "web/10.0.0.")
	}
	batch(api.Check{TTL: "1h"})
	if n := kept(); n != 200 {
		t.Errorf("%d are kept", n)
	}
	batch()
	if n := kept(); n != 0 {
		t.Errorf("%d are kept of checks that ended", n)
	}
}

// An agent that does not know yet what is committed keeps what it is to check.
func TestChecksWithoutCluster(t *testing.T) {
	cfg, no := testConfig(t), false
	cfg.Raft.Bootstrap = &no
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.DataDir, "checks.json")
	if err := os.WriteFile(path, []byte(`{"web/10.0.0.5":{"checks":[{"ttl":3600000000000,"successes":1,"failures":1}]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	a := start(t, cfg)
	now := time.Now()
	for i := range 3 {
		a.TendChecks(now.Add(time.Duration(i) * time.Minute))
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "10.0.0.5") {
		t.Errorf("got %s, %v", b, err)
	}
	if err := a.RemoveOnce(t.Context(), "web", "10.0.0.5"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("removal: got %v", err)
	}
}
