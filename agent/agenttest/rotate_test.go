package agenttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestRotate turns the keys of a mesh of two hosts, whose agent and CoreDNS
// share a key file each, while instances come and go and are asked for. Nothing
// gets lost, nobody is held dead, and a restart finds the new key.
func TestRotate(t *testing.T) {
	t.Parallel()
	const first, second = "000102030405060708090a0b0c0d0e0f", "101112131415161718191a1b1c1d1e1f"
	a, b := newHost(t), newHost(t)
	a.id, b.id = "a", "b"
	hosts := []*host{a, b}
	file := func(h *host) string { return filepath.Join(h.dir, "mesh.keys") }
	options := map[*host][]string{}
	env := map[*host][]string{
		a: {"GOSSIP_IMPL=crdt", "GOSSIP_KEY_HEX_FILE=" + file(a)},
		b: {"GOSSIP_IMPL=crdt", "GOSSIP_KEY_HEX_FILE=" + file(b), "GOSSIP_SEEDS=" + a.gossip, "RAFT_JOIN_URL=http://" + a.http},
	}
	for _, h := range hosts {
		if err := os.WriteFile(file(h), []byte(first+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.startAgent(env[h]...)
		options[h] = h.meshed(a.gossip, "gossip_key "+file(h))
		h.startDNS(options[h]...)
		h.awaitURL(h.coredns, "http://"+h.ready+"/ready")
	}
	a.vouch("web", "10.0.0.1")
	eventually(t, "the mesh is one", func() bool {
		n, _ := b.metricOf(`coredns_fluid_mesh_members{state="alive"}`)
		return n == 4 && resolves(b.dns, "web"+zone, "10.0.0.1")
	})

	// Traffic: a new instance at a every 50 ms, and a question at b after each.
	stop, ended := make(chan struct{}), make(chan struct{})
	var sent, failed atomic.Int64
	go func() {
		defer close(ended)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			n := sent.Add(1)
			ip := fmt.Sprintf("10.1.%d.%d", n/250, n%250+1)
			if code, _ := a.call(http.MethodPut, "/v1/services/busy/instances/"+ip, fmt.Sprintf(`{"ips":[%q]}`, ip)); code != http.StatusCreated {
				failed.Add(1)
			}
			// Asked once more, as a resolver does: one datagram may get lost.
			answered := false
			for range 2 {
				answered = answered || resolves(b.dns, "web"+zone, "10.0.0.1")
			}
			if !answered {
				failed.Add(1)
			}
		}
	}()
	keys := func(h *host, change string) (ids []string) {
		t.Helper()
		code, body := h.call(http.MethodPost, "/v1/keys", change)
		var list struct {
			Keys []struct {
				ID string `json:"id"`
			} `json:"keys"`
			Saved bool `json:"saved"`
		}
		if err := json.Unmarshal([]byte(body), &list); err != nil || code != http.StatusOK || !list.Saved {
			t.Fatalf("%s: got %d %s", change, code, body)
		}
		for _, k := range list.Keys {
			ids = append(ids, k.ID)
		}
		return ids
	}
	// Each step is done everywhere before the next: CoreDNS logs what it took on.
	everywhere := func(step int, change func(*host)) {
		t.Helper()
		for _, h := range hosts {
			change(h)
		}
		for _, h := range hosts {
			eventually(t, fmt.Sprintf("step %d at the CoreDNS of %s", step, h.id), func() bool {
				return strings.Count(h.coredns.out.String(), "gossip keys are now") >= step
			})
		}
	}
	var ids []string
	everywhere(1, func(h *host) { ids = keys(h, `{"action":"add","key":"`+second+`"}`) })
	everywhere(2, func(h *host) { keys(h, `{"action":"use","id":"`+ids[1]+`"}`) })
	everywhere(3, func(h *host) { keys(h, `{"action":"remove","id":"`+ids[0]+`"}`) })
	throughout(t, time.Second, "everybody is alive", func() bool {
		n, _ := b.metricOf(`coredns_fluid_mesh_members{state="alive"}`)
		return n == 4
	})
	close(stop)
	<-ended
	if n := failed.Load(); n != 0 {
		t.Errorf("%d of %d writes and questions failed", n, sent.Load())
	}
	want := sent.Load()
	eventually(t, "all that was registered is known at b", func() bool {
		_, body := b.call(http.MethodGet, "/v1/services/busy", "")
		return int64(strings.Count(body, `"answered":true`)) == want
	})
	t.Logf("%d registrations while the keys turned", want)

	// The files have the new key alone, so a restart is back in the mesh.
	b.agent.kill()
	b.startAgent(env[b]...)
	b.vouch("late", "10.0.0.2")
	eventually(t, "news from after the restart", func() bool { return resolves(a.dns, "late"+zone, "10.0.0.2") })
}
