package agenttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// writeTimeout is how long an agent tries a write.
const writeTimeout = 5 * time.Second

// raftView is the part of GET /v1/raft that the tests look at.
type raftView struct {
	State   string `json:"state"`
	Follows string `json:"follows"`
	Leader  struct {
		Name string `json:"name"`
	} `json:"leader"`
	Servers []struct {
		Name     string `json:"name"`
		Suffrage string `json:"suffrage"`
		Healthy  bool   `json:"healthy"`
	} `json:"servers"`
}

func (h *host) raftNow() (v raftView) {
	h.t.Helper()
	_, body := h.call(http.MethodGet, "/v1/raft", "")
	_ = json.Unmarshal([]byte(body), &v) // an agent that is not up has no view
	return v
}

// newCluster starts three hosts, each with an agent and a CoreDNS, that form
// one cluster of voters.
func newCluster(t testing.TB) []*host {
	t.Helper()
	hosts := []*host{newHost(t), newHost(t), newHost(t)}
	for i, h := range hosts {
		h.id = string(rune('a' + i))
		if i == 0 {
			h.startAgent()
		} else {
			h.startAgent("RAFT_JOIN_URL=http://" + hosts[0].http)
		}
	}
	eventually(t, "three voters", func() bool {
		voters := 0
		for _, s := range hosts[0].raftNow().Servers {
			if s.Suffrage == "voter" {
				voters++
			}
		}
		return voters == len(hosts)
	})
	for _, h := range hosts {
		h.startDNS()
		h.awaitURL(h.coredns, "http://"+h.ready+"/ready")
	}
	return hosts
}

// watch asks all DNS servers of a cluster for a service that never changes and
// for the clock, which must never go back.
type watch struct {
	t     testing.TB
	hosts []*host
	faces []*clockFace // by host
	loads []*load
	write func(h *host) int64 // moves the clock
	last  int64               // where the last write that was acknowledged moved it
}

func startWatch(t testing.TB, hosts []*host) *watch {
	t.Helper()
	w := &watch{t: t, hosts: hosts, write: writer(t)}
	hosts[0].register("steady", "10.0.0.9")
	w.last = w.write(hosts[0])
	for _, h := range hosts {
		eventually(t, "both services are answered", func() bool {
			return resolves(h.dns, "steady"+zone, "10.0.0.9") && len(h.now("clock"+zone)) == 1
		})
		face := &clockFace{}
		w.faces = append(w.faces, face)
		w.loads = append(w.loads, startLoad(t, h.dns, 200, []string{"steady" + zone, "clock" + zone}, face.shown.Load,
			func(q query, r *dns.Msg) error {
				if q.name == "clock"+zone {
					return face.judge(q, r)
				}
				if got := addrs(r); r.Rcode != dns.RcodeSuccess || !slices.Equal(got, []string{"10.0.0.9"}) {
					return fmt.Errorf("%s at %s: got %s %v", q.name, h.id, dns.RcodeToString[r.Rcode], got)
				}
				return nil
			}))
	}
	return w
}

// writes moves the clock n times, through the hosts in turn, and returns how
// long the slowest write took.
func (w *watch) writes(n int, through ...*host) (slowest time.Duration) {
	w.t.Helper()
	for i := range n {
		began := time.Now()
		w.last = w.write(through[i%len(through)])
		slowest = max(slowest, time.Since(began))
	}
	return slowest
}

// reached waits until DNS at the hosts shows the last write.
func (w *watch) reached(hosts ...*host) {
	w.t.Helper()
	for _, h := range hosts {
		i := slices.Index(w.hosts, h)
		eventually(w.t, "the last write is answered at "+h.id, func() bool { return w.faces[i].shown.Load() == w.last })
	}
}

// finish checks that the cluster is whole, that no DNS server ever needed a
// second snapshot, and that no query failed.
func (w *watch) finish() {
	w.t.Helper()
	w.reached(w.hosts...)
	eventually(w.t, "a write is everywhere", func() bool {
		s := w.hosts[1].everywhere(http.MethodPost, "/v1/apps?wait=everywhere&timeout=2s", `{"appId":"after","ip":"10.0.0.10"}`)
		return s.Everywhere
	})
	for i, h := range w.hosts {
		if got := h.now("after" + zone); !slices.Equal(got, []string{"10.0.0.10"}) {
			w.t.Errorf("at %s right after everywhere: got %v, want 10.0.0.10", h.id, got)
		}
		h.wantMetric(`coredns_fluid_events_total{type="snapshot"}`, 1)
		w.loads[i].finish()
	}
}

// leader returns the host that leads, and the others.
func (w *watch) leader() (leader *host, rest []*host) {
	w.t.Helper()
	var at int
	eventually(w.t, "a leader is known", func() bool {
		name := w.hosts[0].raftNow().Leader.Name
		at = slices.IndexFunc(w.hosts, func(h *host) bool { return h.id == name })
		return at >= 0
	})
	return w.hosts[at], slices.Delete(slices.Clone(w.hosts), at, at+1)
}

// TestLeaderKilled kills the leader with SIGKILL: no query fails, nothing that
// was acknowledged is lost, and all end up the same.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	w := startWatch(t, newCluster(t))
	leader, rest := w.leader()
	w.writes(20, rest...)
	leader.agent.kill()
	t.Logf("writes go on %v after the leader was killed", w.writes(1, rest...).Round(time.Millisecond))
	w.writes(20, rest...)
	w.reached(rest...)
	leader.agent = leader.launchAgent()
	w.finish()
}

// TestLeaderFrozen freezes the leader with SIGSTOP. When it wakes up it still
// believes that it leads; the DNS server beside it must not go back.
func TestLeaderFrozen(t *testing.T) {
	t.Parallel()
	w := startWatch(t, newCluster(t))
	leader, rest := w.leader()
	w.writes(5, leader)
	leader.agent.freeze()
	took := w.writes(1, rest...)
	t.Logf("writes go on %v after the leader was frozen", took.Round(time.Millisecond))
	if took >= writeTimeout {
		t.Errorf("the write waited %v for a frozen leader, want less than its whole time of %v", took, writeTimeout)
	}
	w.writes(20, rest...)
	w.reached(rest...)
	if err := leader.agent.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.writes(20, leader) // it forwards them
	w.finish()
}

// TestRollingRestart stops and starts each agent in turn, as an upgrade does.
// A planned stop hands leadership over, so writes hardly wait.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	w := startWatch(t, newCluster(t))
	for i, h := range w.hosts {
		other := w.hosts[(i+1)%len(w.hosts)]
		if err := h.agent.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		slowest := w.writes(20, other)
		if got := h.agent.ended(); got != 0 {
			t.Errorf("%s stopped as asked: got exit code %d, want 0", h.id, got)
		}
		t.Logf("slowest write while %s stops: %v", h.id, slowest.Round(time.Millisecond))
		h.agent = h.launchAgent()
		h.awaitURL(h.agent, "http://"+h.http+"/readyz")
		w.writes(5, h)
		w.reached(h)
	}
	w.finish()
}

// TestAllAgentsKilled kills every agent at once. DNS goes on; started again,
// they are the same cluster with everything that was acknowledged.
func TestAllAgentsKilled(t *testing.T) {
	t.Parallel()
	w := startWatch(t, newCluster(t))
	w.writes(20, w.hosts...)
	for _, h := range w.hosts {
		h.agent.kill()
	}
	eventually(t, "answers are marked stale", func() bool { return w.loads[0].staleSeen() > 20 })
	for _, h := range w.hosts {
		h.agent = h.launchAgent()
	}
	w.writes(20, w.hosts...)
	w.finish()
}

// writer returns a function that moves the clock through a host, asking again
// with the same key until the write is acknowledged.
func writer(t testing.TB) func(h *host) int64 {
	var n int64
	return func(h *host) int64 {
		t.Helper()
		n++
		body := fmt.Sprintf(`{"appId":"clock","id":"only","ip":"10.%d.%d.%d"}`, n>>16&255, n>>8&255, n&255)
		eventually(t, fmt.Sprintf("write %d", n), func() bool {
			code, answer := h.call(http.MethodPost, "/v1/apps", body, fmt.Sprintf("Idempotency-Key: clock-%d", n))
			switch code {
			case http.StatusCreated, http.StatusOK:
				return true
			case 0, http.StatusServiceUnavailable:
				return false
			}
			t.Fatalf("write %d: got %d %s, want it done or 503", n, code, answer)
			return false
		})
		return n
	}
}
