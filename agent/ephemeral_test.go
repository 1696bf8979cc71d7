package agent_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
)

// put sends one request and returns status and body.
func put(t *testing.T, a *agent.Agent, method, path, body string) (int, string) {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{}}
	defer hc.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, a.HTTP()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestEphemeral(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	register(t, c, "critical", "10.0.0.1")
	const path = "/v1/services/cache/instances/10.0.0.5-6379"

	for _, tc := range []struct {
		name, method, path, body string
		status                   int
		text                     string
	}{
		{"new", "PUT", path, `{"ip":"10.0.0.5","port":6379,"tags":["v1"]}`, 201, `"class":"ephemeral"`},
		{"unchanged", "PUT", path, `{"ip":"10.0.0.5","port":6379,"tags":["v1"]}`, 200, `"version":"`},
		{"changed", "PUT", path, `{"ip":"10.0.0.5","port":6379}`, 200, ""},
		{"weight", "PUT", path + "/weight", `{"weight":7}`, 200, ""},
		{"status", "PUT", path + "/status", `{"status":"critical","reason":"disk"}`, 200, ""},
		{"another id in the body", "PUT", path, `{"ip":"10.0.0.5","id":"x"}`, 400, "body.id"},
		{"bad ip", "PUT", path, `{"ip":"x"}`, 400, "body.ip"},
		{"unknown field", "PUT", path, `{"ip":"10.0.0.5","x":1}`, 400, "body.x"},
		{"bad status", "PUT", path + "/status", `{"status":"up"}`, 400, "body.status"},
		{"bad id", "PUT", "/v1/services/cache/instances/A_b", `{"ip":"10.0.0.5"}`, 400, "path.id"},
		{"of a critical service", "PUT", "/v1/services/critical/instances/10.0.0.2", `{"ip":"10.0.0.2"}`, 409, "POST /v1/apps"},
		{"status of nothing", "PUT", "/v1/services/cache/instances/10.0.0.6/status", `{"status":"passing"}`, 404, "not registered at this agent"},
		{"removal of nothing", "DELETE", "/v1/services/cache/instances/10.0.0.6", "", 404, ""},
		{"no mesh", "PUT", path + "?ack=mesh:1", `{"ip":"10.0.0.5","port":6379}`, 503, "urn:fluid:unconfirmed"},
		{"bad ack", "PUT", path + "?ack=all", `{"ip":"10.0.0.5"}`, 400, "query.ack"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, text := put(t, a, tc.method, tc.path, tc.body)
			if status != tc.status || !strings.Contains(text, tc.text) {
				t.Errorf("got %d %s, want %d with %q", status, text, tc.status, tc.text)
			}
		})
	}
	if status, text := put(t, a, "PUT", path+"/status", `{"status":"warning"}`); status != http.StatusOK {
		t.Fatal(text)
	}

	// A restart keeps what was registered, in a new epoch.
	before, err := c.Service(t.Context(), "cache", api.Filter{})
	if err != nil || len(before.Instances) != 1 {
		t.Fatalf("got %+v, %v", before, err)
	}
	stop(t, a)
	a = start(t, cfg)
	c = client(t, a, "")
	after, err := c.Service(t.Context(), "cache", api.Filter{})
	if err != nil || len(after.Instances) != 1 {
		t.Fatalf("after the restart: %+v, %v", after, err)
	}
	x, y := before.Instances[0], after.Instances[0]
	if y.Status != "warning" || y.Tier != "gossip" || !y.Answered || y.Node != "node1" || y.Version == "" || y.Version == x.Version {
		t.Errorf("before %+v, after %+v", x, y)
	}
	if status, text := put(t, a, "DELETE", path, ""); status != http.StatusOK {
		t.Errorf("removal: %d %s", status, text)
	}
	stop(t, a)
	a = start(t, cfg)
	if s, err := client(t, a, "").Service(t.Context(), "cache", api.Filter{}); err == nil && len(s.Instances) > 0 {
		t.Errorf("it came back: %+v", s)
	}
}

// A log that was cut while it was written loses only what nobody was told of;
// one that is damaged is refused.
func TestOriginLog(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	for _, ip := range []string{"10.0.0.1", "10.0.0.2"} {
		if status, text := put(t, a, "PUT", "/v1/services/cache/instances/"+ip, `{"ip":"`+ip+`"}`); status != http.StatusCreated {
			t.Fatal(text)
		}
	}
	stop(t, a)
	path := filepath.Join(cfg.DataDir, "origin.log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{1, 7, len(whole)/2 - 1} {
		if err := os.WriteFile(path, whole[:len(whole)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		a = start(t, cfg)
		leading(t, client(t, a, ""))
		s, err := client(t, a, "").Service(t.Context(), "cache", api.Filter{})
		if err != nil || len(s.Instances) != 1 {
			t.Errorf("cut by %d: %+v, %v", cut, s, err)
		}
		stop(t, a)
	}
	bad := bytes.Clone(whole)
	bad[12] ^= 0xff
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err := agent.Start(t.Context(), cfg, discard()); err == nil || !strings.Contains(err.Error(), "origin.log is damaged") {
		t.Errorf("damaged: got %v, %v", a, err)
	}
}

// An instance registered at one agent is answered at the other, and goes when
// it is withdrawn.
func TestEphemeralAcrossAgents(t *testing.T) {
	_, a1, _, seed := inMesh(t)
	a2, c2 := joined(t, "node2", a1.HTTP(), func(c *agent.Config) {
		c.Gossip.Impl, c.Gossip.Bind, c.Gossip.Seeds = "crdt", "127.0.0.1:0", []string{seed}
	})
	const path = "/v1/services/cache/instances/10.0.0.5"
	eventually(t, "a write that another member confirms", func() bool {
		status, text := put(t, a1, "PUT", path+"?ack=mesh:1&timeout=2s", `{"ip":"10.0.0.5"}`)
		var v api.Vouched
		return status/100 == 2 && json.Unmarshal([]byte(text), &v) == nil && v.Confirmed >= 1
	})
	s, err := c2.Service(t.Context(), "cache", api.Filter{})
	if err != nil || len(s.Instances) != 1 || !s.Instances[0].Answered || s.Instances[0].Node != "node1" {
		t.Errorf("at the other agent: %+v, %v", s, err)
	}
	// It is claimed: the other agent does not take it over.
	if status, text := put(t, a2, "PUT", path, `{"ip":"10.0.0.5","weight":9}`); status != http.StatusConflict || !strings.Contains(text, "node1") {
		t.Errorf("claimed: got %d %s", status, text)
	}
	if status, text := put(t, a1, "DELETE", path, ""); status != http.StatusOK {
		t.Fatal(text)
	}
	eventually(t, "the withdrawal", func() bool {
		s, err := c2.Service(t.Context(), "cache", api.Filter{})
		return err != nil || len(s.Instances) == 0
	})
}
