package mesh_test

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// commitState makes the node's catalog hold a committed state, as its feed or
// its Raft would, and passes it on.
func (n *node) commitState(t *testing.T, prev, pos record.Position, entries ...record.Entry) {
	t.Helper()
	b := catalog.Batch{Prev: prev, Entries: entries}
	n.Update(func(c *catalog.Catalog) catalog.Changes {
		ch, err := c.Apply(prev, pos, entries)
		if err != nil {
			t.Error(err)
		}
		b.Seal = mesh.MakeSeal(clusterKey, pos, c.Hash())
		return ch
	})
	n.Commit(b)
}

func committed(index uint64, service, id string) record.Entry {
	in := instance(service, id)
	return record.Entry{Key: record.InstanceKey(service, id), Value: string(in.Append(nil)), Index: index}
}

func pos(index uint64) record.Position { return record.Position{Index: index} }

func testCommitted(t *testing.T, w world) {
	a, b, d := group(t, w)
	a.commitState(t, pos(0), pos(1), committed(1, "shop", "a"))
	wantAnswers(t, w, "shop", []string{"a"}, b, d)
	w.cut([]string{"agent-a"}, []string{"agent-b", "dns-1"})
	for i := uint64(2); i < 20; i++ {
		a.commitState(t, pos(i-1), pos(i), committed(i, "shop", fmt.Sprint("b", i)))
	}
	w.heal()
	news, _ := w.within()
	late := start(t, w, "dns-2", mesh.RoleDNS, nil, b)
	for _, n := range []*node{b, d, late} {
		eventually(t, 30*time.Second+news, n.id+" has 19 instances", func() bool { return len(n.answers("shop")) == 19 })
	}
	a.commitState(t, pos(19), pos(20), record.Entry{Key: record.InstanceKey("shop", "a"), Index: 20, Deleted: true})
	for _, n := range []*node{b, d, late} {
		eventually(t, news, n.id+" has 18 instances", func() bool { return len(n.answers("shop")) == 18 })
	}
}

func testForgedSeal(t *testing.T, w world) {
	a, b, d := group(t, w)
	evil := ed25519.NewKeyFromSeed(slices.Repeat([]byte{8}, ed25519.SeedSize))
	entries := []record.Entry{committed(5, "shop", "evil")}
	forged := mesh.MakeSeal(evil, pos(5), catalog.EntryHash(entries[0]))
	stolen := mesh.MakeSeal(clusterKey, pos(5), 12345)
	for _, seal := range []catalog.Seal{forged, stolen} {
		a.Commit(catalog.Batch{Seal: seal, Entries: entries})
	}
	b.register(t, "web", "after")
	wantAnswers(t, w, "web", []string{"after"}, a, d)
	for _, n := range []*node{b, d} {
		if got := n.answers("shop"); got != nil {
			t.Errorf("%s answers %v from a state nobody sealed", n.id, got)
		}
	}
}

// testLateCluster takes committed state only from when the cluster is known.
func testLateCluster(t *testing.T, w world) {
	a := start(t, w, "agent-a", mesh.RoleAgent, nil)
	b := start(t, w, "dns-1", mesh.RoleDNS, func(c *mesh.Config) { c.Cluster = "" }, a)
	a.commitState(t, pos(0), pos(1), committed(1, "shop", "a"))
	a.register(t, "web", "a")
	wantAnswers(t, w, "web", []string{"a"}, b)
	if got := b.answers("shop"); got != nil {
		t.Errorf("answers %v of a cluster it does not know", got)
	}
	b.SetCluster(clusterID())
	wantAnswers(t, w, "shop", []string{"a"}, b)
}
