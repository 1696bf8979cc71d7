package mesh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluid-sd/fluid/plugin/mesh"
)

// netWorld is a group on the in-memory network, in fake time.
type netWorld struct {
	impl  mesh.Impl
	net   *network
	addrs map[string]string
	keys  [][]byte
	gzip  bool
}

func (w *netWorld) configure(_ *testing.T, cfg *mesh.Config) {
	p := w.net.listen()
	w.addrs[cfg.ID] = p.addr.String()
	cfg.Impl, cfg.Transport, cfg.Keys, cfg.Compression = w.impl, p, w.keys, w.gzip
	for _, a := range w.addrs {
		cfg.Seeds = append(cfg.Seeds, a)
	}
}

func (w *netWorld) cut(a, b []string) { w.net.setCut(w.of(a), w.of(b), true) }
func (w *netWorld) heal()             { w.net.healAll() }

func (w *netWorld) of(ids []string) []string {
	var out []string
	for _, id := range ids {
		out = append(out, w.addrs[id])
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
	suite(t, inBubble, func(*testing.T) world {
		return &netWorld{impl: mesh.CRDT, net: newNetwork(), addrs: map[string]string{}, keys: [][]byte{key(1)}, gzip: true}
	})
}

func TestMemberlist(t *testing.T) {
	suite(t, inBubble, func(*testing.T) world {
		return &netWorld{impl: mesh.Memberlist, net: newNetwork(), addrs: map[string]string{}, keys: [][]byte{key(1)}, gzip: true}
	})
}
