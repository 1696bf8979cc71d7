package agenttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// raftView is the part of GET /v1/raft that the tests look at.
type raftView struct {
	Leader struct {
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
func newCluster(t *testing.T) []*host {
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

// TestLeaderKilled kills the leader with SIGKILL while all three DNS servers
// are asked and a client writes. No query fails, nothing that was acknowledged
// is lost, no DNS server goes back in time, and all end up the same.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	hosts := newCluster(t)
	hosts[1].register("steady", "10.0.0.9")
	shown := make([]atomic.Int64, len(hosts))
	loads := make([]*load, len(hosts))
	write := writer(t)
	last := write(hosts[0])
	for i, h := range hosts {
		eventually(t, "both services are answered", func() bool {
			return resolves(h.dns, "steady"+zone, "10.0.0.9") && len(h.now("clock"+zone)) == 1
		})
		loads[i] = startLoad(t, h.dns, 200, []string{"steady" + zone, "clock" + zone}, func(name string, r *dns.Msg) error {
			got := addrs(r)
			if r.Rcode != dns.RcodeSuccess || len(got) != 1 {
				return fmt.Errorf("%s at %s: got %s %v", name, h.id, dns.RcodeToString[r.Rcode], got)
			}
			if name == "steady"+zone {
				if got[0] != "10.0.0.9" {
					return fmt.Errorf("%s at %s: got %v", name, h.id, got)
				}
				return nil
			}
			now, err := clockOf(got[0])
			if was := shown[i].Swap(now); err == nil && now < was {
				err = fmt.Errorf("%s at %s went back from %d to %d", name, h.id, was, now)
			}
			return err
		})
	}
	name := hosts[0].raftNow().Leader.Name
	at := slices.IndexFunc(hosts, func(h *host) bool { return h.id == name })
	if at < 0 {
		t.Fatalf("the leader is %q", name)
	}
	leader, rest := hosts[at], slices.Delete(slices.Clone(hosts), at, at+1)
	for range 20 {
		last = write(rest[0])
	}
	leader.agent.kill()
	began := time.Now()
	last = write(rest[0])
	t.Logf("writes go on %v after the leader was killed", time.Since(began).Round(time.Millisecond))
	for i := range 20 {
		last = write(rest[i%2])
	}
	reached := func(hs ...*host) {
		t.Helper()
		for _, h := range hs {
			i := slices.Index(hosts, h)
			eventually(t, "the last write is answered at "+h.id, func() bool { return shown[i].Load() == last })
		}
	}
	reached(rest...)

	leader.agent = leader.launchAgent()
	reached(hosts...)
	eventually(t, "a write is everywhere again", func() bool {
		s := rest[1].everywhere(http.MethodPost, "/v1/apps?wait=everywhere&timeout=2s", `{"appId":"after","ip":"10.0.0.10"}`)
		return s.Everywhere
	})
	for i, h := range hosts {
		if got := h.now("after" + zone); !slices.Equal(got, []string{"10.0.0.10"}) {
			t.Errorf("at %s right after everywhere: got %v, want 10.0.0.10", h.id, got)
		}
		h.wantMetric(`coredns_fluid_events_total{type="snapshot"}`, 1)
		loads[i].finish()
	}
}

// writer returns a function that moves the clock through a host, asking again
// with the same key until the write is acknowledged.
func writer(t *testing.T) func(h *host) int64 {
	var n int64
	return func(h *host) int64 {
		t.Helper()
		n++
		body := fmt.Sprintf(`{"appId":"clock","id":"only","ip":"10.%d.%d.%d"}`, n>>16&255, n>>8&255, n&255)
		eventually(t, fmt.Sprintf("write %d", n), func() bool {
			code, answer := h.call(http.MethodPost, "/v1/apps", body, fmt.Sprintf("Idempotency-Key: clock-%d", n))
			if code != http.StatusCreated && code != http.StatusOK && code != http.StatusServiceUnavailable {
				t.Fatalf("write %d: got %d %s, want it done or 503", n, code, answer)
			}
			return code != http.StatusServiceUnavailable
		})
		return n
	}
}
