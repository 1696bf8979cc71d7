package mesh_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
)

// socketWorld is a group on loopback sockets, in real time. It cannot cut.
type socketWorld struct {
	impl mesh.Impl
	keys [][]byte
}

func (w *socketWorld) configure(_ *testing.T, cfg *mesh.Config) {
	cfg.Impl, cfg.Bind, cfg.Keys, cfg.Compression = w.impl, "127.0.0.1:0", w.keys, true
}

func (w *socketWorld) cut(_, _ []string) { panic("sockets cannot be cut") }
func (w *socketWorld) heal()             {}

func (w *socketWorld) within() (news, death time.Duration) {
	return 15 * time.Second, 30 * time.Second
}

func TestSockets(t *testing.T) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, world)
	}{
		{"spread", testSpread},
		{"late joiner", testLateJoiner},
		{"leave", testLeave},
		{"confirm", testConfirm},
		{"labels", testLabels},
		{"closed", testClosed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.test(t, &socketWorld{impl: mesh.CRDT, keys: [][]byte{key(1), key(2)}})
		})
	}
}

// TestWrongKey keeps members apart whose rings have no key in common.
func TestWrongKey(t *testing.T) {
	for _, tc := range []struct {
		name string
		a, b [][]byte
		want bool
	}{
		{"same key", [][]byte{key(1)}, [][]byte{key(1)}, true},
		{"rings that overlap", [][]byte{key(1), key(2)}, [][]byte{key(2), key(1)}, true},
		{"wrong key", [][]byte{key(1)}, [][]byte{key(2)}, false},
		{"no key", [][]byte{key(1)}, nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := start(t, &socketWorld{impl: mesh.CRDT, keys: tc.a}, "agent-a", mesh.RoleAgent, nil)
			b := &node{id: "dns-1"}
			b.c = catalog.New()
			m, err := mesh.New(mesh.Config{Impl: mesh.CRDT, ID: "dns-1", Role: mesh.RoleDNS, Replica: b, Bind: "127.0.0.1:0", Keys: tc.b})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = m.Close() })
			n, err := m.Join(t.Context(), []string{a.Self().Addr})
			if (n == 1 && err == nil) != tc.want {
				t.Errorf("joined %d, %v", n, err)
			}
			if !tc.want && len(a.Members()) != 1 {
				t.Errorf("a member without the key is known: %v", a.Members())
			}
		})
	}
}

func TestAllowList(t *testing.T) {
	only := func(cidr string) func(*mesh.Config) {
		return func(c *mesh.Config) { c.Allow = []netip.Prefix{netip.MustParsePrefix(cidr)} }
	}
	w := &socketWorld{impl: mesh.CRDT}
	a := start(t, w, "agent-a", mesh.RoleAgent, only("10.0.0.0/8"))
	b := start(t, w, "agent-b", mesh.RoleAgent, nil)
	if n, err := b.Join(t.Context(), []string{a.Self().Addr}); err == nil {
		t.Errorf("joined %d members from outside the allowed networks", n)
	}
	if a.Stats().Dropped["cidr"] == 0 {
		t.Error("nothing was counted")
	}
	c := start(t, w, "agent-c", mesh.RoleAgent, only("127.0.0.0/8"))
	if n, err := b.Join(t.Context(), []string{c.Self().Addr}); err != nil || n != 1 {
		t.Errorf("allowed network: joined %d, %v", n, err)
	}
}

// TestNoise sends what is no member: the mesh drops and counts it, and goes on.
func TestNoise(t *testing.T) {
	w := &socketWorld{impl: mesh.CRDT, keys: [][]byte{key(1)}}
	a := start(t, w, "agent-a", mesh.RoleAgent, nil)
	addr := a.Self().Addr
	for _, tc := range []struct {
		name string
		data []byte
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n")},
		{"half a TLS record", []byte{0x16, 3, 1, 0xff, 0xff, 1}},
		{"a TLS record of noise", append([]byte{0x16, 3, 1, 0, 200}, bytes.Repeat([]byte{7}, 200)...)},
		{"nothing", nil},
		{"memberlist's compound header", bytes.Repeat([]byte{7, 255, 255}, 100)},
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(tc.data)
		_ = conn.Close()
		u, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = u.Write(tc.data)
		_ = u.Close()
	}
	b := start(t, w, "agent-b", mesh.RoleAgent, nil, a)
	a.register(t, "web", "a")
	wantAnswers(t, w, "web", []string{"a"}, b)
	eventually(t, 5*time.Second, "noise counted", func() bool {
		d := a.Stats().Dropped
		return d["handshake"]+d["no_key"]+d["malformed"] > 0
	})
}

func TestInsecureBind(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*mesh.Config)
		want bool
	}{
		{"loopback", func(c *mesh.Config) { c.Bind = "127.0.0.1:0" }, true},
		{"every address", func(c *mesh.Config) { c.Bind = "0.0.0.0:0" }, false},
		{"no address", func(c *mesh.Config) { c.Bind = "nowhere" }, false},
		{"key of a wrong length", func(c *mesh.Config) { c.Bind, c.Keys = "127.0.0.1:0", [][]byte{{1}} }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &node{}
			r.c = catalog.New()
			cfg := mesh.Config{Impl: mesh.CRDT, ID: "x", Role: mesh.RoleDNS, Replica: r}
			tc.edit(&cfg)
			m, err := mesh.New(cfg)
			if (err == nil) != tc.want {
				t.Errorf("New: %v", err)
			}
			if err == nil {
				_ = m.Close()
			}
		})
	}
}
