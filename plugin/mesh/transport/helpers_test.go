package transport

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"github.com/fluid-sd/fluid/plugin/mesh/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ Network = (*memnet.Host)(nil)

// testKey returns a key that depends on n only.
func testKey(t testing.TB, n byte) Key {
	t.Helper()
	k, err := NewKey(bytes.Repeat([]byte{n}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testRing(t testing.TB, ns ...byte) *Keyring {
	t.Helper()
	var keys []Key
	for _, n := range ns {
		keys = append(keys, testKey(t, n))
	}
	r, err := NewKeyring(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// newTransport opens a transport on loopback that ends with the test.
func newTransport(t testing.TB, cfg Config) *Transport {
	t.Helper()
	if !cfg.Bind.IsValid() {
		cfg.Bind = loopback
	}
	if cfg.ID == "" {
		cfg.ID = "test"
	}
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// book resolves members to addresses.
type book struct {
	mu sync.Mutex
	at map[MemberID]netip.AddrPort
}

func (b *book) set(id MemberID, at netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at == nil {
		b.at = make(map[MemberID]netip.AddrPort)
	}
	b.at[id] = at
}

func (b *book) resolve(id MemberID) (netip.AddrPort, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, ok := b.at[id]
	return at, ok
}

// inbox is a handler that keeps what it gets.
type inbox struct {
	mu  sync.Mutex
	got map[MemberID][]string
	n   int
}

func (b *inbox) handle(from MemberID, frame []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.got == nil {
		b.got = make(map[MemberID][]string)
	}
	b.got[from] = append(b.got[from], string(frame))
	b.n++
}

func (b *inbox) from(id MemberID) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.got[id]...)
}

func (b *inbox) total() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// member is a transport with streams and what it received.
type member struct {
	*Transport
	*Streams
	inbox
}

func newMember(t testing.TB, at *book, cfg Config, edit func(*StreamsConfig)) *member {
	t.Helper()
	m := &member{Transport: newTransport(t, cfg)}
	sc := StreamsConfig{Resolve: at.resolve, Handler: m.handle}
	if edit != nil {
		edit(&sc)
	}
	var err error
	if m.Streams, err = m.NewStreams(sc); err != nil {
		t.Fatal(err)
	}
	at.set(cfg.ID, m.Addr())
	return m
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	eventuallyWithin(t, 20*time.Second, what, cond)
}

func eventuallyWithin(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(within)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("after %v: not %s", within, what)
		}
	}
}

// newMemberlist starts memberlist over a transport; it ends with the test.
func newMemberlist(t testing.TB, tr memberlist.NodeAwareTransport, id MemberID, edit func(*memberlist.Config)) *memberlist.Memberlist {
	t.Helper()
	cfg := memberlist.DefaultLANConfig()
	cfg.Name = string(id)
	cfg.Transport = tr
	cfg.EnableCompression = false
	cfg.UDPBufferSize = 1400 - PacketOverhead
	cfg.Logger = log.New(io.Discard, "", 0)
	if edit != nil {
		edit(cfg)
	}
	m, err := memberlist.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func frameOf(i int) string { return fmt.Sprintf("frame %06d", i) }
