package agent_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
)

const ownedPath = "/v1/services/cache/instances/10.0.0.5"

// owner returns the node of the only answered version of the instance, or "".
func owner(t *testing.T, c *api.Client) (node string) {
	t.Helper()
	s, err := c.Service(t.Context(), "cache", api.Filter{})
	if err != nil {
		return ""
	}
	for _, in := range s.Instances {
		if in.Answered {
			node += in.Node
		}
	}
	return node
}

// own registers the instance at a and waits until the other clients see it.
func own(t *testing.T, a *agent.Agent, node string, others ...*api.Client) {
	t.Helper()
	if status, text := put(t, a, "PUT", ownedPath, `{"ip":"10.0.0.5"}`); status != http.StatusCreated {
		t.Fatal(text)
	}
	for _, c := range others {
		eventually(t, "the instance elsewhere", func() bool { return owner(t, c) == node })
	}
}

// live counts the instances that a node vouches for, as c sees it.
func live(t *testing.T, c *api.Client, node string) int {
	t.Helper()
	list, err := c.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		if n.Name == node {
			return n.Instances
		}
	}
	return 0
}

// A take-over is explicit; the one who had it withdraws, and gets it back only
// in the same way.
func TestTakeover(t *testing.T) {
	a1, a2, c1, c2 := meshed(t)
	own(t, a1, "node1", c2)
	if status, text := put(t, a2, "PUT", ownedPath, `{"ip":"10.0.0.5"}`); status != http.StatusConflict || !strings.Contains(text, "registered by node1") || !strings.Contains(text, "takeover=true") {
		t.Fatalf("without: got %d %s", status, text)
	}
	status, text := put(t, a2, "PUT", ownedPath+"?takeover=true&ack=mesh:1", `{"ip":"10.0.0.5"}`)
	if status != http.StatusCreated {
		t.Fatalf("takeover: got %d %s", status, text)
	}
	if got := owner(t, c2); got != "node2" {
		t.Errorf("at once at node2: got %q", got)
	}
	eventually(t, "node2 at node1", func() bool { return owner(t, c1) == "node2" })
	eventually(t, "the withdrawal of node1's claim", func() bool { return live(t, c2, "node1") == 0 && live(t, c2, "node2") == 1 })
	if status, text := put(t, a1, "PUT", ownedPath, `{"ip":"10.0.0.5"}`); status != http.StatusConflict || !strings.Contains(text, "node2") {
		t.Errorf("node1 again: got %d %s", status, text)
	}
	if status, text := put(t, a1, "PUT", ownedPath+"?takeover=true", `{"ip":"10.0.0.5"}`); status != http.StatusCreated {
		t.Errorf("back: got %d %s", status, text)
	}
	eventually(t, "node1 at node2", func() bool { return owner(t, c2) == "node1" })
	// There is nothing to take over where nobody is; it is a registration.
	if status, text := put(t, a1, "PUT", "/v1/services/cache/instances/10.0.0.6?takeover=true", `{"ip":"10.0.0.6"}`); status != http.StatusCreated {
		t.Errorf("of nobody: got %d %s", status, text)
	}
}

// A removal reaches the owner, whoever is asked.
func TestForwardedDelete(t *testing.T) {
	a1, a2, c1, c2 := meshed(t)
	own(t, a1, "node1", c2)
	status, text := put(t, a2, "DELETE", ownedPath, "")
	var v api.Vouched
	if err := json.Unmarshal([]byte(text), &v); err != nil || status != http.StatusOK || v.Owner != "node1" || v.Killed || v.Version == "" {
		t.Fatalf("got %d %s", status, text)
	}
	if got := owner(t, c1); got != "" {
		t.Errorf("still answered by %s at its owner", got)
	}
	eventually(t, "its end elsewhere", func() bool { return owner(t, c2) == "" })
	if status, text := put(t, a2, "DELETE", ownedPath, ""); status != http.StatusNotFound {
		t.Errorf("again: got %d %s", status, text)
	}
	own(t, a2, "node2", c1)
	if status, text := put(t, a1, "DELETE", ownedPath+"?ack=mesh:1", ""); status != http.StatusServiceUnavailable || !strings.Contains(text, "done at node2") {
		t.Errorf("with an ack: got %d %s", status, text)
	}
}

// An owner that does not answer is said so; by force its instance goes, and
// stays gone when the owner returns.
func TestForcedDelete(t *testing.T) {
	a1, a2, c1, c2 := meshed(t)
	cfg := testConfig(t)
	list, err := c1.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Node, cfg.Raft.JoinURL = "node3", a1.HTTP()
	cfg.Gossip.Impl, cfg.Gossip.Bind, cfg.Gossip.KeyHex = "crdt", "127.0.0.1:0", oldKey
	cfg.Gossip.Seeds = []string{list[0].Addr, list[1].Addr}
	a3 := start(t, cfg)
	leading(t, client(t, a3, ""))
	eventually(t, "three voters", func() bool {
		r, err := c1.Raft(t.Context())
		n := 0
		for _, s := range r.Servers {
			if s.Suffrage == "voter" {
				n++
			}
		}
		return err == nil && n == 3
	})
	own(t, a3, "node3", c1, c2)
	stop(t, a3)

	begin := time.Now()
	status, text := put(t, a1, "DELETE", ownedPath, "")
	if took := time.Since(begin); status != http.StatusServiceUnavailable || !strings.Contains(text, "urn:fluid:owner") ||
		!strings.Contains(text, "node3") || !strings.Contains(text, "force=true") || took < 1500*time.Millisecond || took > 5*time.Second {
		t.Fatalf("got %d %s after %s", status, text, took)
	}
	if got := owner(t, c1); got != "node3" {
		t.Errorf("refused, and yet answered by %q", got)
	}
	var v api.Vouched
	status, text = put(t, a2, "DELETE", ownedPath+"?force=true", "")
	if err := json.Unmarshal([]byte(text), &v); err != nil || status != http.StatusOK || !v.Killed || v.Owner != "node3" {
		t.Fatalf("forced: got %d %s", status, text)
	}
	if got := owner(t, c2); got != "" {
		t.Errorf("killed, and yet answered by %q", got)
	}
	eventually(t, "the kill elsewhere", func() bool { return owner(t, c1) == "" })
	if status, text := put(t, a1, "DELETE", ownedPath, ""); status != http.StatusNotFound { // nobody is asked again
		t.Errorf("what was killed: got %d %s", status, text)
	}

	a3 = start(t, cfg)
	c3 := client(t, a3, "")
	eventually(t, "its own withdrawal", func() bool { return live(t, c3, "node3") == 0 && live(t, c1, "node3") == 0 })
	if got := owner(t, c1) + owner(t, c3); got != "" {
		t.Errorf("it came back: %q", got)
	}
	own(t, a3, "node3", c1) // an explicit request is another matter
}

func TestHeartbeat(t *testing.T) {
	a := start(t, testConfig(t))
	leading(t, client(t, a, ""))
	if status, text := put(t, a, "PUT", ownedPath+"/heartbeat", ""); status != http.StatusNotFound {
		t.Errorf("of nothing: got %d %s", status, text)
	}
	own(t, a, "node1")
	if status, text := put(t, a, "PUT", ownedPath+"/heartbeat", ""); status != http.StatusOK || !strings.Contains(text, `"service":"cache"`) {
		t.Errorf("got %d %s", status, text)
	}
	if status, text := put(t, a, "PUT", "/v1/services/Cache/instances/10.0.0.5/heartbeat", ""); status != http.StatusBadRequest || !strings.Contains(text, "path.service") {
		t.Errorf("bad service: got %d %s", status, text)
	}
}

// What agents ask of each other is guarded like the rest of it.
func TestWithdrawIsGuarded(t *testing.T) {
	cfg := testConfig(t)
	cfg.Token, cfg.Raft.JoinSecret = "s3cret", "j0in"
	a := start(t, cfg)
	leading(t, client(t, a, "s3cret"))
	req := api.WithdrawRequest{Service: "cache", ID: "10.0.0.5", Principal: "operator"}
	for secret, want := range map[string]int{"": 401, "guess": 401, "j0in": 404, "s3cret": 404} {
		_, err := client(t, a, secret).Withdraw(t.Context(), req)
		if e := new(api.Error); !errors.As(err, &e) || e.Status != want {
			t.Errorf("with %q: got %v, want %d", secret, err, want)
		}
	}
	open := start(t, testConfig(t))
	for _, body := range []string{`{`, `{"service":"cache","id":"10.0.0.5","x":1}`, `{"service":"Cache","id":"10.0.0.5"}`} {
		if status, text := put(t, a, "POST", api.WithdrawPath, body); status != http.StatusUnauthorized {
			t.Errorf("%s without a secret: got %d %s", body, status, text)
		}
		if status, text := put(t, open, "POST", api.WithdrawPath, body); status != http.StatusBadRequest {
			t.Errorf("%s: got %d %s", body, status, text)
		}
	}
}
