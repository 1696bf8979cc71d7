package transport

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// rawStream opens a verified frame stream from outside Streams.
func rawStream(t *testing.T, from *Transport, to *member) *session {
	t.Helper()
	s, err := from.open(t.Context(), to.Addr(), kindFrames, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// What a member of the mesh sends that is not a frame ends its stream and is
// counted; the next stream works.
func TestHostileMember(t *testing.T) {
	zeros := make([]byte, 16<<20)
	text := []byte(strings.Repeat("fluid ", 100))
	msg := func(m messageType, payload []byte) []byte {
		return append(appendHeader(nil, m, len(payload)), payload...)
	}
	for _, tc := range []struct {
		name string
		send []byte
		want Reason
	}{
		{"oversized", appendHeader(nil, messageFrame, MaxFrame+1), ReasonOversize},
		{"bomb", msg(messageGzip, pack(t, zeros, MaxFrame)), ReasonBomb},
		{"bomb that lies", msg(messageGzip, pack(t, zeros, 300)), ReasonBomb},
		{"flipped gzip", msg(messageGzip, slices.Replace(pack(t, text, len(text)), 20, 21, 0xEE)), ReasonMalformed},
		{"unknown type", msg(77, nil), ReasonMalformed},
		{"forged proof", msg(messageProof, appendProofs(nil, []proof{{key: testKey(t, 1).ID()}})), ReasonForged},
		{"broken proof", msg(messageProof, []byte{3}), ReasonMalformed},
		{"truncated and closed", appendHeader(nil, messageFrame, 10), ReasonNone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := new(book)
			victim := newMember(t, at, Config{ID: "victim", Keyring: testRing(t, 1)}, nil)
			evil := newTransport(t, Config{ID: "evil", Keyring: testRing(t, 1)})
			s := rawStream(t, evil, victim)
			if _, err := s.Write(tc.send); err != nil {
				t.Fatal(err)
			}
			if tc.want == ReasonNone {
				s.Close()
			}
			eventually(t, "the stream ended", func() bool {
				st := victim.Stats()
				return st.Streams == 0 && st.Closes.Total() == 1
			})
			if d := victim.Stats().StreamDrops; tc.want != ReasonNone && d.Of(tc.want) != 1 {
				t.Errorf("drops %v, want one for %s", d, tc.want)
			}
			if victim.total() != 0 {
				t.Error("a frame was handled")
			}
			s = rawStream(t, evil, victim)
			if _, err := s.Write(msg(messageFrame, []byte("good"))); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a good frame is handled", func() bool { return victim.total() == 1 })
		})
	}
}

// Who proves nothing gets no stream and is counted.
func TestHostileDialer(t *testing.T) {
	ring := testRing(t, 1)
	for _, tc := range []struct {
		name string
		cfg  Config
		want Reason
	}{
		{"wrong key", Config{ID: "x", Label: "prod", Keyring: testRing(t, 2)}, ReasonWrongKey},
		{"no key", Config{ID: "x", Label: "prod"}, ReasonNoKey},
		{"wrong label", Config{ID: "x", Label: "test", Keyring: ring}, ReasonLabel},
	} {
		for _, k := range []kind{kindFrames, kindMemberlist} {
			t.Run(tc.name, func(t *testing.T) {
				victim := newMember(t, new(book), Config{ID: "victim", Label: "prod", Keyring: ring}, nil)
				x := newTransport(t, tc.cfg)
				if s, err := x.open(t.Context(), victim.Addr(), k, ""); err == nil {
					s.Close()
					t.Fatal("a stream was opened")
				}
				eventually(t, "it is counted", func() bool { d := victim.Stats().StreamDrops; return d.Of(tc.want) == 1 })
				// The same as a packet.
				if _, err := x.WriteTo([]byte("hello"), victim.Addr().String()); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the packet is counted", func() bool { d := victim.Stats().PacketDrops; return d.Of(tc.want) == 1 })
			})
		}
	}
}

// dialRaw opens a connection without any protocol on it.
func dialRaw(t *testing.T, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", to.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// A hello that was valid on one connection is worthless on another, in either
// role: the exporter and the role are in the proof.
func TestReplayedHello(t *testing.T) {
	ring := testRing(t, 1)
	victim := newMember(t, new(book), Config{ID: "victim", Keyring: ring}, nil)
	conf, err := newTLSConfig()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		from role
	}{{"recorded elsewhere", roleDialer}, {"reflected", roleAcceptor}} {
		t.Run(tc.name, func(t *testing.T) {
			before := victim.Stats().StreamDrops
			c := tls.Client(dialRaw(t, victim.Addr()), conf)
			if err := c.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			h := hello{kind: kindFrames, label: tagOfLabel(""), member: "x"}
			exporter := make([]byte, exporterSize)
			if tc.from == roleAcceptor { // of this very connection
				state := c.ConnectionState()
				if exporter, err = state.ExportKeyingMaterial(exporterLabel, nil, exporterSize); err != nil {
					t.Fatal(err)
				}
			}
			h.proofs = prove(ring.snapshot(), transcript(tc.from, exporter, "", &h))
			if _, err := c.Write(h.append(nil)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Error("the acceptor answers")
			}
			eventually(t, "it is counted as forged", func() bool {
				after := victim.Stats().StreamDrops
				return after.Of(ReasonForged) == before.Of(ReasonForged)+1
			})
		})
	}
}

func TestNoise(t *testing.T) {
	victim := newMember(t, new(book), Config{ID: "victim", Keyring: testRing(t, 1), HandshakeTimeout: 300 * time.Millisecond}, nil)
	conf, err := newTLSConfig()
	if err != nil {
		t.Fatal(err)
	}
	old := conf.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, tc := range []struct {
		name string
		do   func(net.Conn)
	}{
		{"nothing", func(net.Conn) {}},
		{"memberlist in clear", func(c net.Conn) { c.Write([]byte{244, 4, 'p', 'r', 'o', 'd', 6}) }},
		{"half a handshake", func(c net.Conn) { c.Write([]byte{22, 3, 1, 2, 0, 1}) }},
		{"TLS 1.2", func(c net.Conn) { tls.Client(c, old).Handshake() }},
		{"no hello", func(c net.Conn) { tls.Client(c, conf).Handshake() }},
		{"long hello", func(c net.Conn) {
			tc := tls.Client(c, conf)
			tc.Handshake()
			tc.Write(binary.BigEndian.AppendUint16(nil, 65535))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := victim.Stats().StreamDrops
			c := dialRaw(t, victim.Addr())
			tc.do(c)
			if _, err := io.Copy(io.Discard, c); errors.Is(err, net.ErrClosed) {
				t.Fatal(err)
			}
			eventually(t, "it is counted", func() bool {
				after := victim.Stats().StreamDrops
				return after.Total() == before.Total()+1
			})
		})
	}
	if n := victim.Stats().Handshakes; n != 0 {
		t.Errorf("%d connections still hold a place", n)
	}
}

func TestHandshakeLimit(t *testing.T) {
	victim := newTransport(t, Config{Keyring: testRing(t, 1), MaxHandshakes: 8})
	var conns []net.Conn
	for range 10 {
		conns = append(conns, dialRaw(t, victim.Addr()))
	}
	eventually(t, "those beyond the limit of one address are refused", func() bool {
		s := victim.Stats()
		return s.StreamDrops.Of(ReasonLimit) == 8 && s.Handshakes == 2
	})
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "their places are free", func() bool { return victim.Stats().Handshakes == 0 })
}

// The allow list is asked before anything is read, and before anything is
// sent.
func TestAllowListFirst(t *testing.T) {
	allow, err := ParseAllowList("192.0.2.0/24")
	if err != nil {
		t.Fatal(err)
	}
	victim := newMember(t, new(book), Config{ID: "victim", Keyring: testRing(t, 1), Allow: allow}, nil)
	x := newTransport(t, Config{ID: "x", Keyring: testRing(t, 1)})
	if s, err := x.open(t.Context(), victim.Addr(), kindFrames, ""); err == nil {
		s.Close()
		t.Error("a stream was opened")
	}
	if _, err := x.WriteTo([]byte("hello"), victim.Addr().String()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both are counted", func() bool {
		s := victim.Stats()
		return s.StreamDrops.Of(ReasonCIDR) == 1 && s.PacketDrops.Of(ReasonCIDR) == 1
	})
	if _, err := victim.WriteTo([]byte("hello"), x.Addr().String()); reasonOf(err) != ReasonCIDR {
		t.Errorf("send: %v", err)
	}
	if _, err := victim.DialTimeout(x.Addr().String(), time.Second); reasonOf(err) != ReasonCIDR {
		t.Errorf("dial: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	a := newMember(t, new(book), Config{ID: "a", Keyring: testRing(t, 1)}, nil)
	b := newMember(t, new(book), Config{ID: "b", Keyring: testRing(t, 1)}, nil)
	if _, err := a.DialTimeout(a.Addr().String(), time.Second); !errors.Is(err, ErrSelf) {
		t.Errorf("dial to itself: %v, want %v", err, ErrSelf)
	}
	_, err := a.DialAddressTimeout(memberlist.Address{Addr: b.Addr().String(), Name: "c"}, time.Second)
	if reasonOf(err) != ReasonIdentity {
		t.Errorf("dial to c reaches b: %v", err)
	}
	conn, err := a.DialAddressTimeout(memberlist.Address{Addr: b.Addr().String(), Name: "b"}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestConfigValidate(t *testing.T) {
	ok := Config{ID: "a", Bind: loopback}
	public := netip.MustParseAddrPort("0.0.0.0:0")
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"loopback without key", func(*Config) {}, ""},
		{"no id", func(c *Config) { c.ID = "" }, "id has 0 bytes"},
		{"long id", func(c *Config) { c.ID = MemberID(strings.Repeat("x", 65)) }, "id has 65 bytes"},
		{"long label", func(c *Config) { c.Label = strings.Repeat("x", 256) }, "label"},
		{"no bind", func(c *Config) { c.Bind = netip.AddrPort{} }, "bind is not set"},
		{"public without key", func(c *Config) { c.Bind = public }, "there is no key"},
		{"public and insecure", func(c *Config) { c.Bind, c.Insecure = public, true }, ""},
		{"public with key", func(c *Config) { c.Bind, c.Keyring = public, testRing(t, 1) }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := ok
			tc.edit(&c)
			err := c.Validate()
			if (tc.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
