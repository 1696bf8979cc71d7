package mesh_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/mesh/memnet"
)

// netWorld is a group on the in-memory network, in fake time.
type netWorld struct {
	impl  mesh.Impl
	net   *memnet.Network
	hosts map[string]netip.Addr
	keys  [][]byte
	gzip  bool
}

func newNetWorld(impl mesh.Impl, keys ...[]byte) *netWorld {
	w := &netWorld{impl: impl, net: memnet.New(1), hosts: map[string]netip.Addr{}, keys: keys, gzip: true}
	w.net.SetDelay(300*time.Microsecond, 2*time.Millisecond)
	return w
}

func (w *netWorld) configure(_ *testing.T, cfg *mesh.Config) {
	n := len(w.hosts) + 1
	host, again := w.hosts[cfg.ID]
	if !again {
		host = netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
		w.hosts[cfg.ID] = host
	}
	cfg.Impl, cfg.Network, cfg.Keys, cfg.Compression = w.impl, w.net.Host(host), w.keys, w.gzip
	cfg.Bind = netip.AddrPortFrom(host, 7946).String()
	cfg.Insecure = true
	for _, a := range w.hosts {
		cfg.Seeds = append(cfg.Seeds, netip.AddrPortFrom(a, 7946).String())
	}
}

func (w *netWorld) cut(a, b []string) { w.net.Partition(w.of(a), w.of(b)) }
func (w *netWorld) heal()             { w.net.Heal() }

func (w *netWorld) of(ids []string) []netip.Addr {
	var out []netip.Addr
	for _, id := range ids {
		out = append(out, w.hosts[id])
	}
	return out
}

func (w *netWorld) within() (news, death time.Duration) {
	if w.impl == mesh.Memberlist {
		return 30 * time.Second, 30 * time.Second
	}
	return 10 * time.Second, 30 * time.Second
}

// inBubble runs a test in fake time, and lets what memberlist leaves running
// after its Shutdown come to an end.
func inBubble(t *testing.T, f func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { <-time.After(time.Minute) })
		f(t)
	})
}

func key(b byte) []byte {
	k := make([]byte, 32)
	for i := range k {
		k[i] = b
	}
	return k
}

func TestCRDT(t *testing.T) {
	suite(t, inBubble, func(*testing.T) world { return newNetWorld(mesh.CRDT, key(1)) })
}

func TestMemberlist(t *testing.T) {
	suite(t, inBubble, func(*testing.T) world { return newNetWorld(mesh.Memberlist, key(1)) })
}
