package agent_test

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Two agents that did not know of each other registered one instance. The
// later claim wins; the owner of the other withdraws its own after 10 s.
func TestLostClaim(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for 10 s")
	}
	cfg := testConfig(t)
	cfg.Gossip.Impl, cfg.Gossip.Bind, cfg.Gossip.KeyHex = "crdt", "127.0.0.1:0", oldKey
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	seed := gossipAddress(t, c)
	own(t, a, "node1")

	const far = "agent-far"
	rival := &replica{cat: catalog.New()}
	var err error
	rival.Update(func(cat *catalog.Catalog) catalog.Changes {
		now := time.Now().UnixMilli() + 1
		ow, ch, oerr := cat.Own(now, record.OriginID{9}, uint64(now), 1, nil)
		if oerr != nil {
			err = oerr
			return ch
		}
		node, _ := ow.Describe(now, &record.Node{ID: far, Name: "far"})
		in := record.Instance{Service: "cache", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.5")}, Node: "far", Weight: 1}
		in.Normalize()
		it, _, rerr := ow.Register(now, &in)
		err = errors.Join(rerr, in.Validate())
		ow.Commit(now, node, it)
		return ch
	})
	if err != nil {
		t.Fatal(err)
	}
	key, err := hex.DecodeString(oldKey)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mesh.New(mesh.Config{
		Impl: mesh.CRDT, ID: far, Name: "far", Role: mesh.RoleAgent, Replica: rival, Bind: "127.0.0.1:0",
		Seeds: []string{seed}, Keys: [][]byte{key},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if _, err := m.Join(t.Context(), []string{seed}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the later claim answered", func() bool { return owner(t, c) == "far" })
	begin := time.Now()
	if n := live(t, c, "node1"); n != 1 {
		t.Errorf("node1 gave up at once: it holds %d", n)
	}
	eventually(t, "the withdrawal of the claim that lost", func() bool { return live(t, c, "node1") == 0 })
	if took := time.Since(begin); took < 8*time.Second {
		t.Errorf("it gave up after %s", took)
	}
	if got := owner(t, c); got != "far" {
		t.Errorf("answered by %q", got)
	}
}
