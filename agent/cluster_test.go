package agent_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
)

// joined starts an agent that joins through another one.
func joined(t *testing.T, name, url string, edit ...func(*agent.Config)) (*agent.Agent, *api.Client) {
	t.Helper()
	cfg := testConfig(t)
	cfg.Node, cfg.Raft.JoinURL = name, url
	for _, e := range edit {
		e(&cfg)
	}
	a := start(t, cfg)
	c := client(t, a, cfg.Token)
	leading(t, c)
	return a, c
}

func names(r api.Raft) []string {
	var out []string
	for _, s := range r.Servers {
		out = append(out, s.Name)
	}
	slices.Sort(out)
	return out
}

// The second server joins, takes writes for the leader, and its client reads
// what it wrote.
func TestTwoServers(t *testing.T) {
	a1 := start(t, testConfig(t))
	c1 := client(t, a1, "")
	leading(t, c1)
	register(t, c1, "checkout", "10.0.0.9")
	_, c2 := joined(t, "node2", a1.HTTP())
	_, c3 := joined(t, "node3", a1.HTTP())

	for i, c := range []*api.Client{c2, c3, c1} {
		service := []string{"web", "api", "db"}[i]
		done := register(t, c, service, "10.0.0.10")
		s, err := c.Service(t.Context(), service, api.Filter{})
		if err != nil || len(s.Instances) != 1 || s.Index != done.Index {
			t.Errorf("%s at once after its registration: %+v, %v", service, s, err)
		}
	}
	r, err := c3.Raft(t.Context())
	if err != nil || r.Leader.Name != "node1" || r.Leader.HTTP != a1.HTTP() || len(r.Servers) != 3 {
		t.Errorf("raft at node3: %+v, %v", r, err)
	}

	// What a follower cannot do itself is done by the leader that it names.
	if _, err := c2.Remove(t.Context(), "node3"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node3 removed", func() bool {
		r, err := c1.Raft(t.Context())
		return err == nil && slices.Equal(names(r), []string{"node1", "node2"})
	})
	if _, err := c1.Remove(t.Context(), "node3"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removed again: got %v", err)
	}

	// An error keeps its meaning on the way.
	never := uint64(0)
	if _, err := c2.Deregister(t.Context(), "web", &api.WriteOptions{IfMatch: &never}); !errors.Is(err, store.ErrPrecondition) {
		t.Errorf("If-Match through node2: got %v", err)
	}
	if _, err := c2.Deregister(t.Context(), "nosuch", nil); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deregister through node2: got %v", err)
	}
}

// RAFT_JOIN_URL of a follower leads to the leader.
func TestJoinThroughFollower(t *testing.T) {
	a1 := start(t, testConfig(t))
	leading(t, client(t, a1, ""))
	a2, _ := joined(t, "node2", a1.HTTP())
	_, c3 := joined(t, "node3", a2.HTTP())
	if r, err := c3.Raft(t.Context()); err != nil || !slices.Equal(names(r), []string{"node1", "node2", "node3"}) {
		t.Errorf("got %+v, %v", r, err)
	}
}

// However long joining fails, no cluster is formed; then it succeeds.
func TestJoinWaits(t *testing.T) {
	hold := testConfig(t)
	a1 := start(t, hold)
	c1 := client(t, a1, "")
	leading(t, c1)
	url := a1.HTTP()
	stop(t, a1)

	cfg := testConfig(t)
	cfg.Node, cfg.Raft.JoinURL = "node2", url
	c2 := client(t, start(t, cfg), "")
	if h, err := c2.Ready(t.Context()); err != nil || h.Status != "not ready" || !strings.Contains(h.Reasons[0], url) {
		t.Errorf("while nobody is there: %+v, %v", h, err)
	}
	hold.HTTPBind = strings.TrimPrefix(url, "http://")
	c1 = client(t, start(t, hold), "")
	leading(t, c1)
	leading(t, c2)
	r1, err1 := c1.Raft(t.Context())
	r2, err2 := c2.Raft(t.Context())
	if err1 != nil || err2 != nil || r1.ClusterID != r2.ClusterID {
		t.Errorf("got %+v, %v and %+v, %v", r1, err1, r2, err2)
	}
}

// A server with state of another cluster is refused, and stops.
func TestJoinOtherCluster(t *testing.T) {
	cfg := testConfig(t)
	cfg.Node = "node2"
	a2 := start(t, cfg)
	leading(t, client(t, a2, ""))
	stop(t, a2)

	a1 := start(t, testConfig(t))
	leading(t, client(t, a1, ""))
	cfg.Raft.JoinURL = a1.HTTP()
	a2 = start(t, cfg)
	endsAsOther(t, a2)
}

// endsAsOther waits until an agent ends because it has state of another cluster.
func endsAsOther(t *testing.T, a *agent.Agent) {
	t.Helper()
	select {
	case err := <-a.Failed():
		if !errors.Is(err, store.ErrOtherCluster) || !strings.Contains(err.Error(), "fluid-agent reset") {
			t.Errorf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it goes on")
	}
}

// What servers ask of each other needs the join secret, or the token.
func TestJoinSecret(t *testing.T) {
	cfg := testConfig(t)
	cfg.Token, cfg.Raft.JoinSecret = "s3cret", "j0in"
	a1 := start(t, cfg)
	leading(t, client(t, a1, "s3cret"))
	for _, wrong := range []string{"", "guess"} {
		if _, err := client(t, a1, wrong).Join(t.Context(), api.JoinRequest{ID: "x", Name: "x", Addr: "127.0.0.1:1"}); !errors.Is(err, api.ErrUnauthorized) {
			t.Errorf("join with %q: got %v", wrong, err)
		}
		if _, err := client(t, a1, wrong).Forward(t.Context(), nil); !errors.Is(err, api.ErrUnauthorized) {
			t.Errorf("forward with %q: got %v", wrong, err)
		}
	}
	if _, err := client(t, a1, "j0in").Services(t.Context(), api.Filter{}); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("the join secret opens the rest: %v", err)
	}
	_, c2 := joined(t, "node2", a1.HTTP(), func(c *agent.Config) { c.Token, c.Raft.JoinSecret = "s3cret", "j0in" })
	register(t, c2, "web", "10.0.0.1") // forwarded with the secret
}

// Without a quorum, writes are refused in a bounded time and reads go on.
func TestNoQuorum(t *testing.T) {
	a1 := start(t, testConfig(t))
	c1 := client(t, a1, "")
	leading(t, c1)
	register(t, c1, "web", "10.0.0.1")
	a2, c2 := joined(t, "node2", a1.HTTP())
	eventually(t, "two voters", func() bool {
		r, err := c1.Raft(t.Context())
		return err == nil && len(r.Servers) == 2 && r.Servers[0].Suffrage == "voter" && r.Servers[1].Suffrage == "voter"
	})
	stop(t, a1)
	_ = a2
	begin := time.Now()
	_, err := c2.Deregister(t.Context(), "web", nil)
	var e *api.Error
	if !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable || e.RetryAfter == 0 {
		t.Errorf("write: got %v", err)
	}
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("it took %s", took)
	}
	if s, err := c2.Service(t.Context(), "web", api.Filter{}); err != nil || len(s.Instances) != 1 {
		t.Errorf("read: got %+v, %v", s, err)
	}
	if h, err := c2.Ready(t.Context()); err != nil || h.Status != "ready" {
		t.Errorf("ready: got %+v, %v", h, err)
	}
}

func TestTransfer(t *testing.T) {
	a1 := start(t, testConfig(t))
	c1 := client(t, a1, "")
	leading(t, c1)
	_, c2 := joined(t, "node2", a1.HTTP())
	eventually(t, "two voters", func() bool {
		r, err := c1.Raft(t.Context())
		return err == nil && len(r.Servers) == 2 && r.Servers[0].Suffrage == "voter" && r.Servers[1].Suffrage == "voter"
	})
	if _, err := c2.Transfer(t.Context(), "node2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node2 leading", func() bool {
		r, err := c1.Raft(t.Context())
		return err == nil && r.Leader.Name == "node2"
	})
	register(t, c1, "web", "10.0.0.1")
}
