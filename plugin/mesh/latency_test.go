package mesh_test

import (
	"flag"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

var (
	latencyMembers = flag.Int("latency.members", 10, "members of the mesh whose latency is measured")
	latencyChanges = flag.Int("latency.changes", 20, "changes, one at a time")
)

// TestLatency measures, on loopback sockets with keys and compression, how long
// a change takes to be visible at every member, beside a bare memberlist
// broadcast in the same run.
func TestLatency(t *testing.T) {
	w := &socketWorld{impl: mesh.CRDT, keys: [][]byte{key(1)}}
	nodes := []*node{start(t, w, "m000", mesh.RoleAgent, nil)}
	for i := 1; i < *latencyMembers; i++ {
		nodes = append(nodes, start(t, w, fmt.Sprintf("m%03d", i), mesh.RoleDNS, nil, nodes[i/2]))
	}
	whole(t, nodes, time.Minute)
	var every, all []time.Duration
	for i := range *latencyChanges {
		began := time.Now()
		head := nodes[0].register(t, "web", fmt.Sprint("i", i))
		left := slices.Clone(nodes[1:])
		tick := time.NewTicker(time.Millisecond)
		for len(left) > 0 && time.Since(began) < 10*time.Second {
			<-tick.C
			left = slices.DeleteFunc(left, func(n *node) bool {
				ok := n.holds(head.Origin, head)
				if ok {
					every = append(every, time.Since(began))
				}
				return ok
			})
		}
		tick.Stop()
		if len(left) > 0 {
			t.Fatalf("%d members lack change %d", len(left), i)
		}
		all = append(all, time.Since(began))
	}
	bare := bareBroadcast(t, *latencyMembers, *latencyChanges)
	show := func(what string, d []time.Duration) {
		slices.Sort(d)
		t.Logf("%-32s p50 %v, p99 %v", what, d[len(d)/2].Round(time.Millisecond), d[len(d)*99/100].Round(time.Millisecond))
	}
	show("crdt, each member", every)
	show("crdt, all members", all)
	show("bare memberlist, each member", bare)
}

func (n *node) holds(id record.OriginID, want catalog.Head) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	got, ok := n.c.Head(id)
	return ok && got.Compare(want) >= 0
}

// bareBroadcast measures memberlist's own broadcast queue with its defaults.
func bareBroadcast(t *testing.T, members, changes int) []time.Duration {
	t.Helper()
	got := make(chan time.Duration, members*changes)
	var lists []*memberlist.Memberlist
	var queues []*memberlist.TransmitLimitedQueue
	began := make([]atomic.Pointer[time.Time], changes)
	for i := range members {
		conf := memberlist.DefaultLANConfig()
		conf.Name, conf.BindAddr, conf.BindPort, conf.AdvertisePort = fmt.Sprint("bare", i), "127.0.0.1", 0, 0
		conf.LogOutput = discard{}
		q := &memberlist.TransmitLimitedQueue{RetransmitMult: conf.RetransmitMult, NumNodes: func() int { return members }}
		conf.Delegate = &bare{queue: q, seen: map[byte]bool{}, took: func(n byte) { got <- time.Since(*began[n].Load()) }}
		ml, err := memberlist.Create(conf)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ml.Shutdown() })
		if i > 0 {
			if _, err := ml.Join([]string{lists[i/2].LocalNode().Address()}); err != nil {
				t.Fatal(err)
			}
		}
		lists, queues = append(lists, ml), append(queues, q)
	}
	eventually(t, time.Minute, "bare members mostly know each other", func() bool {
		return !slices.ContainsFunc(lists, func(m *memberlist.Memberlist) bool { return m.NumMembers() < members*8/10 })
	})
	var out []time.Duration
	for i := range changes {
		now := time.Now()
		began[i].Store(&now)
		queues[0].QueueBroadcast(bareMessage{byte(i)})
		end := time.After(10 * time.Second)
		for n := 0; n < members-1; n++ {
			select {
			case d := <-got:
				out = append(out, d)
			case <-end: // gossip alone loses some for good
				n = members
			}
		}
	}
	return out
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

type bareMessage []byte

func (bareMessage) Invalidates(memberlist.Broadcast) bool { return false }
func (m bareMessage) Message() []byte                     { return m }
func (bareMessage) Finished()                             {}

type bare struct {
	queue *memberlist.TransmitLimitedQueue
	seen  map[byte]bool
	took  func(byte)
}

func (b *bare) NodeMeta(int) []byte { return nil }

func (b *bare) NotifyMsg(msg []byte) {
	if !b.seen[msg[0]] {
		b.seen[msg[0]] = true
		b.took(msg[0])
		b.queue.QueueBroadcast(bareMessage{msg[0]})
	}
}

func (b *bare) GetBroadcasts(overhead, limit int) [][]byte {
	return b.queue.GetBroadcasts(overhead, limit)
}
func (b *bare) LocalState(bool) []byte        { return nil }
func (b *bare) MergeRemoteState([]byte, bool) {}
