package agenttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// meshed returns the options that make a host's CoreDNS a member of the mesh.
func (h *host) meshed(seed string, more ...string) []string {
	return append([]string{
		fmt.Sprintf("gossip crdt 127.0.0.1:%d", freePort(h.t)),
		"gossip_node " + h.id + "-dns",
		"gossip_seeds " + seed,
	}, more...)
}

// vouch registers an ephemeral instance at the host's agent.
func (h *host) vouch(service, ip string) {
	h.t.Helper()
	path := "/v1/services/" + service + "/instances/" + ip
	if code, body := h.call(http.MethodPut, path, fmt.Sprintf(`{"ips":[%q]}`, ip)); code != http.StatusCreated {
		h.t.Fatalf("PUT %s: got %d %s", path, code, body)
	}
}

// clusterID returns the id of the cluster that the agent belongs to.
func (h *host) clusterID() string {
	h.t.Helper()
	_, body := h.call(http.MethodGet, "/v1/raft", "")
	var raft struct {
		ClusterID string `json:"clusterId"`
	}
	if err := json.Unmarshal([]byte(body), &raft); err != nil || raft.ClusterID == "" {
		h.t.Fatalf("no cluster id in %s (%v)", body, err)
	}
	return raft.ClusterID
}

// within is eventually for what takes its time by design.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(limit); !ok(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// throughout fails the test if ok is false at any time before the end.
func throughout(t testing.TB, span time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(span); ; {
		if !ok() {
			t.Fatalf("not throughout %v: %s", span, what)
		}
		select {
		case <-tick.C:
		case <-end:
			return
		}
	}
}

// TestMesh has two hosts of a cluster and a CoreDNS without an agent in one
// mesh. What one agent vouches for and what the cluster committed is answered
// everywhere. The death of an agent withdraws nothing while its CoreDNS lives;
// the death of both does, once it is sure.
func TestMesh(t *testing.T) {
	t.Parallel()
	a, b, c := newHost(t), newHost(t), newHost(t)
	a.id, b.id, c.id = "a", "b", "c"
	a.startAgent("GOSSIP_IMPL=crdt")
	b.startAgent("GOSSIP_IMPL=crdt", "GOSSIP_SEEDS="+a.gossip, "RAFT_JOIN_URL=http://"+a.http)
	a.startDNS(a.meshed(a.gossip)...)
	b.startDNS(b.meshed(b.gossip)...)
	c.startDNS(c.meshed(b.gossip, "cluster "+a.clusterID())...)
	for _, h := range []*host{a, b, c} {
		h.awaitURL(h.coredns, "http://"+h.ready+"/ready")
	}
	a.register("checkout", "10.0.0.9")
	a.vouch("web", "10.0.0.1")
	b.vouch("web", "10.0.0.2") // a majority, or the guard would hold the other
	b.vouch("web", "10.0.0.3")
	all := func() bool {
		for _, h := range []*host{a, b, c} {
			if !resolves(h.dns, "checkout"+zone, "10.0.0.9") || !resolves(h.dns, "web"+zone, "10.0.0.1", "10.0.0.2", "10.0.0.3") {
				return false
			}
		}
		return true
	}
	eventually(t, "everything is answered everywhere", all)
	for _, h := range []*host{a, b, c} {
		eventually(t, "five members at "+h.id, func() bool {
			n, _ := h.metricOf(`coredns_fluid_mesh_members{state="alive"}`)
			return n == 5
		})
	}
	throughout(t, 3*time.Second, "everything is answered", all) // meanwhile a tells which CoreDNS is beside it

	a.agent.kill()
	within(t, time.Minute, "the agent is found dead", func() bool {
		n, _ := c.metricOf(`coredns_fluid_mesh_members{state="dead"}`)
		return n == 1
	})
	throughout(t, 33*time.Second, "everything is answered without an agent at a", all) // longer than the hold-down
	for _, h := range []*host{a, b, c} {
		h.wantMetric(`coredns_fluid_state{state="fresh"}`, 1)
	}

	a.coredns.kill()
	for _, h := range []*host{b, c} {
		within(t, 90*time.Second, "what host a vouched for is withdrawn at "+h.id, func() bool {
			return resolves(h.dns, "web"+zone, "10.0.0.2", "10.0.0.3")
		})
		if !resolves(h.dns, "checkout"+zone, "10.0.0.9") {
			t.Errorf("%s lost a committed instance", h.id)
		}
	}
}

// TestRelayed has an agent and a CoreDNS that do not gossip: what the agent
// vouches for comes over the feed, and stays when the agent is gone.
func TestRelayed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startAgent()
	h.startDNS("gossip inmemory")
	h.vouch("web", "10.0.0.1")
	h.vouch("web", "10.0.0.2")
	eventually(t, "both are answered", func() bool { return resolves(h.dns, "web"+zone, "10.0.0.1", "10.0.0.2") })
	if code, body := h.call(http.MethodDelete, "/v1/services/web/instances/10.0.0.1", ""); code != http.StatusOK {
		t.Fatalf("DELETE: got %d %s", code, body)
	}
	eventually(t, "one is answered", func() bool { return resolves(h.dns, "web"+zone, "10.0.0.2") })
	h.agent.kill()
	throughout(t, 33*time.Second, "it is answered without the agent", func() bool { return resolves(h.dns, "web"+zone, "10.0.0.2") })
}
