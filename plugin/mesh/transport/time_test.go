package transport

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluid-sd/fluid/plugin/mesh/memnet"
)

// fakePair is two members in a bubble.
func fakePair(t *testing.T, edit func(*StreamsConfig)) (n *memnet.Network, a, b *member, hosts [2]netip.Addr) {
	t.Helper()
	n = memnet.New(1)
	n.SetDelay(time.Millisecond, 2*time.Millisecond)
	at := new(book)
	var ms [2]*member
	for i, id := range []MemberID{"a", "b"} {
		hosts[i] = netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		cfg := Config{ID: id, Keyring: testRing(t, 1), Bind: netip.AddrPortFrom(hosts[i], 7946), Network: n.Host(hosts[i])}
		ms[i] = newMember(t, at, cfg, edit)
	}
	return n, ms[0], ms[1], hosts
}

func TestIdleStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, _ := fakePair(t, nil)
		a.Send("b", []byte("x"), Data)
		after(t, time.Minute, "arrived", func() bool { return b.total() == 1 })
		// Frames keep it open for as long as they come.
		for range 10 {
			wait(t.Context(), time.Minute)
			b.Send("a", []byte("y"), Data)
		}
		if s := a.Stats(); s.Dials != 1 || s.Streams != 1 {
			t.Errorf("%d dials, %d streams, want one of each", s.Dials, s.Streams)
		}
		start := time.Now()
		after(t, 10*time.Minute, "closed", func() bool { return a.Stats().Streams+b.Stats().Streams == 0 })
		if idle := time.Since(start); idle < 2*time.Minute || idle > 3*time.Minute {
			t.Errorf("closed after %v without frames", idle)
		}
		sa, sb := a.Stats(), b.Stats()
		if sa.Closes.Of(ReasonIdle)+sb.Closes.Of(ReasonIdle) == 0 {
			t.Errorf("closes %v and %v, want one idle", sa.Closes, sb.Closes)
		}
		if d := sa.StreamDrops.Total() + sb.StreamDrops.Total(); d != 0 {
			t.Errorf("%d drops", d)
		}
	})
}

// A peer that is cut off without a word is noticed by its silence, and frames
// flow again after the heal.
func TestSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b, hosts := fakePair(t, nil)
		a.Send("b", []byte("x"), Data)
		after(t, time.Minute, "arrived", func() bool { return b.total() == 1 })
		n.Partition(hosts[:1])
		start := time.Now()
		after(t, 5*time.Minute, "noticed by both", func() bool { return len(a.Peers())+len(b.Peers()) == 0 })
		if took := time.Since(start); took > 45*time.Second {
			t.Errorf("noticed after %v", took)
		}
		if c := a.Stats().Closes; c.Of(ReasonTimeout) != 1 {
			t.Errorf("closes %v, want one timeout", c)
		}
		a.Send("b", []byte("lost"), Data)
		wait(t.Context(), 10*time.Second)
		if d := a.Stats().FrameDrops; d.Of(ReasonUnreachable) != 1 {
			t.Errorf("drops %v, want one unreachable", d)
		}
		n.Heal()
		after(t, time.Minute, "a frame arrives again", func() bool {
			a.Send("b", []byte("y"), Data)
			return b.total() > 1
		})
	})
}

// Dials of a peer that is away come further and further apart.
func TestBackoffGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b, hosts := fakePair(t, nil)
		b.Shutdown()
		_, _ = n, hosts
		for range 60 * 10 {
			a.Send("b", []byte("x"), Data)
			wait(t.Context(), 100*time.Millisecond)
		}
		if d := n.Stats().Dials; d < 6 || d > 25 {
			t.Errorf("%d dials in a minute", d)
		}
	})
}

// A writer whose peer reads nothing gives up after the write timeout.
func TestStuckPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		_, a, b, _ := fakePair(t, func(c *StreamsConfig) {
			keep := c.Handler
			c.Handler = func(from MemberID, frame []byte) {
				keep(from, frame)
				if from == "a" {
					<-block
				}
			}
		})
		frame := make([]byte, 256<<10)
		for range 8 {
			a.Send("b", frame, Data)
		}
		after(t, time.Minute, "the stream ended", func() bool { c := a.Stats().Closes; return c.Of(ReasonTimeout) == 1 })
		close(block)
		after(t, time.Minute, "the next one works", func() bool {
			a.Send("b", []byte("x"), Data)
			f := b.from("a")
			return len(f) > 0 && f[len(f)-1] == "x"
		})
	})
}
