package agent_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
)

const (
	oldKey = "00112233445566778899aabbccddeeff"
	newKey = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
)

// meshed starts two agents in one mesh.
func meshed(t *testing.T) (a1, a2 *agent.Agent, c1, c2 *api.Client) {
	t.Helper()
	cfg := testConfig(t)
	cfg.Gossip.Impl, cfg.Gossip.Bind, cfg.Gossip.KeyHex = "crdt", "127.0.0.1:0", oldKey
	a1 = start(t, cfg)
	c1 = client(t, a1, "")
	leading(t, c1)
	seed := gossipAddress(t, c1)
	a2, c2 = joined(t, "node2", a1.HTTP(), func(c *agent.Config) {
		c.Gossip = cfg.Gossip
		c.Gossip.Seeds = []string{seed}
	})
	eventually(t, "both see both nodes", func() bool { return nodes(t, c1) == "node1 node2" && nodes(t, c2) == "node1 node2" })
	return a1, a2, c1, c2
}

// inMesh starts an agent in a mesh of its own without keys, and returns where
// others find it.
func inMesh(t *testing.T) (cfg agent.Config, a *agent.Agent, c *api.Client, seed string) {
	t.Helper()
	cfg = testConfig(t)
	cfg.Gossip.Impl, cfg.Gossip.Bind = "crdt", "127.0.0.1:0"
	a = start(t, cfg)
	c = client(t, a, "")
	leading(t, c)
	return cfg, a, c, gossipAddress(t, c)
}

// nodes returns the names of the nodes that are attended.
func nodes(t *testing.T, c *api.Client) string {
	t.Helper()
	list, err := c.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, n := range list {
		found[n.Name] = n.State == "attended"
	}
	out := ""
	for _, name := range []string{"node1", "node2"} {
		if found[name] {
			out += " " + name
		}
	}
	return strings.TrimSpace(out)
}

// A rotation in three steps, with both agents hearing of each other all along.
func TestRotateKeys(t *testing.T) {
	a1, a2, c1, c2 := meshed(t)
	known := func(where *api.Client, what string) {
		t.Helper()
		eventually(t, what, func() bool {
			s, err := where.Service(t.Context(), what, api.Filter{})
			return err == nil && len(s.Instances) == 1 && s.Instances[0].Answered
		})
	}
	say := func(a *agent.Agent, service string) {
		t.Helper()
		if status, text := put(t, a, "PUT", "/v1/services/"+service+"/instances/10.0.0.5", `{"ip":"10.0.0.5"}`); status != http.StatusCreated {
			t.Fatal(text)
		}
	}
	both := func(change api.KeyChange) (keys []api.Key) {
		t.Helper()
		for _, c := range []*api.Client{c1, c2} {
			var err error
			if keys, err = c.ChangeKeys(t.Context(), change); err != nil {
				t.Fatal(err)
			}
		}
		return keys
	}
	keys := both(api.KeyChange{Action: "add", Key: newKey})
	if len(keys) != 2 || !keys[0].Primary || keys[1].Primary || keys[1].Bits != 256 {
		t.Fatalf("after adding: %+v", keys)
	}
	old, new := keys[0].ID, keys[1].ID
	say(a1, "added")
	known(c2, "added")
	if _, err := c1.ChangeKeys(t.Context(), api.KeyChange{Action: "use", ID: new}); err != nil {
		t.Fatal(err)
	}
	say(a1, "half")
	known(c2, "half")
	both(api.KeyChange{Action: "use", ID: new})
	keys = both(api.KeyChange{Action: "remove", ID: old})
	if len(keys) != 1 || keys[0].ID != new || !keys[0].Primary {
		t.Errorf("after removing: %+v", keys)
	}
	say(a2, "rotated")
	known(c1, "rotated")

	// Whoever comes with the old key alone stays outside; the new one opens.
	list, err := c1.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.Node, cfg.Raft.JoinURL = "node3", a1.HTTP()
	cfg.Gossip.Impl, cfg.Gossip.Bind, cfg.Gossip.KeyHex = "crdt", "127.0.0.1:0", oldKey
	c3 := client(t, start(t, cfg), "")
	leading(t, c3)
	seeds := []string{list[0].Addr, list[1].Addr}
	eventually(t, "the third agent refused", func() bool {
		_, err := c3.JoinMesh(t.Context(), seeds)
		var e *api.Error
		return errors.As(err, &e) && e.Type == "urn:fluid:unavailable"
	})
	for _, ch := range []api.KeyChange{{Action: "add", Key: newKey}, {Action: "use", ID: new}} {
		if _, err := c3.ChangeKeys(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := c3.JoinMesh(t.Context(), seeds); err != nil || n == 0 {
		t.Errorf("join with the new key: %d, %v", n, err)
	}
	known(c3, "rotated")
}

func TestKeysRefused(t *testing.T) {
	plain := client(t, start(t, testConfig(t)), "")
	leading(t, plain)
	if keys, err := plain.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("keys of no mesh: %v, %v", keys, err)
	}
	for name, err := range map[string]error{
		"change": func() error {
			_, err := plain.ChangeKeys(t.Context(), api.KeyChange{Action: "add", Key: newKey})
			return err
		}(),
		"join":  func() error { _, err := plain.JoinMesh(t.Context(), []string{"127.0.0.1:1"}); return err }(),
		"leave": plain.LeaveMesh(t.Context()),
	} {
		if !errors.Is(err, api.ErrNoMesh) {
			t.Errorf("%s without a mesh: got %v", name, err)
		}
	}
	cfg := testConfig(t)
	cfg.Gossip.Impl, cfg.Gossip.Bind, cfg.Gossip.KeyHex = "crdt", "127.0.0.1:0", oldKey
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	keys, err := c.Keys(t.Context())
	if err != nil || len(keys) != 1 {
		t.Fatalf("got %v, %v", keys, err)
	}
	for _, tc := range []struct {
		name, body string
		status     int
		text       string
	}{
		{"the last key", `{"action":"remove","id":"` + keys[0].ID + `"}`, 409, "encrypts"},
		{"unknown key", `{"action":"use","id":"01020304"}`, 404, "not in the ring"},
		{"no action", `{"key":"` + newKey + `"}`, 400, "body.action"},
		{"no key", `{"action":"add"}`, 400, "body.key"},
		{"no id", `{"action":"use"}`, 400, "body.id"},
		{"bad key", `{"action":"add","key":"` + newKey + `zz"}`, 400, "hexadecimal"},
		{"short key", `{"action":"add","key":"` + newKey[:20] + `"}`, 400, "key"},
		{"key to use", `{"action":"use","key":"` + newKey + `"}`, 400, "by its id"},
		{"unknown field", `{"action":"add","kee":"` + newKey + `"}`, 400, "not a change of keys"},
		{"not text", `{"action":"add","key":["` + newKey + `"]}`, 400, "not a change of keys"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, text := put(t, a, "POST", "/v1/keys", tc.body)
			if status != tc.status || !strings.Contains(text, tc.text) {
				t.Errorf("got %d %s, want %d with %q", status, text, tc.status, tc.text)
			}
			if strings.Contains(text, newKey[:20]) {
				t.Errorf("the answer repeats the key: %s", text)
			}
		})
	}
	if again, err := c.Keys(t.Context()); err != nil || len(again) != 1 || again[0] != keys[0] {
		t.Errorf("the ring became %v, %v", again, err)
	}
}

// What left the mesh is out of the others' answers at once, and back with a
// join.
func TestLeaveAndJoin(t *testing.T) {
	_, a2, c1, c2 := meshed(t)
	if status, text := put(t, a2, "PUT", "/v1/services/cache/instances/10.0.0.5?ack=mesh:1", `{"ip":"10.0.0.5"}`); status != http.StatusCreated {
		t.Fatal(text)
	}
	answered := func() bool {
		s, err := c1.Service(t.Context(), "cache", api.Filter{})
		return err == nil && len(s.Instances) == 1 && s.Instances[0].Answered
	}
	eventually(t, "the instance at the other agent", answered)
	if err := c2.LeaveMesh(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its withdrawal", func() bool { return !answered() })
	eventually(t, "the node dead", func() bool { return nodes(t, c1) == "node1" })
	if err := c2.LeaveMesh(t.Context()); !errors.Is(err, api.ErrNoMesh) {
		t.Errorf("left again: got %v", err)
	}
	list, err := c1.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.Name == "node1" {
			if n, err := c2.JoinMesh(t.Context(), []string{m.Addr}); err != nil || n != 1 {
				t.Fatalf("join: %d, %v", n, err)
			}
		}
	}
	eventually(t, "its return", answered)
	if status, text := put(t, a2, "POST", "/v1/mesh/join", `{"addrs":["nowhere"]}`); status != 400 || !strings.Contains(text, "body.addrs[0]") {
		t.Errorf("got %d %s", status, text)
	}
}
