package transport

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pair returns two members that know each other's address.
func pair(t *testing.T, edit func(*Config, *StreamsConfig)) (a, b *member) {
	t.Helper()
	at := new(book)
	build := func(id MemberID) *member {
		cfg := Config{ID: id, Label: "test", Keyring: testRing(t, 1)}
		sc := StreamsConfig{}
		if edit != nil {
			edit(&cfg, &sc)
		}
		return newMember(t, at, cfg, func(c *StreamsConfig) {
			sc.Resolve = c.Resolve
			if sc.Handler == nil {
				sc.Handler = c.Handler
			}
			*c = sc
		})
	}
	return build("a"), build("b")
}

func TestStreamsCarryFrames(t *testing.T) {
	random := make([]byte, MaxFrame)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	frames := []string{
		"", "x", strings.Repeat("fluid ", 100), strings.Repeat("fluid ", 50000),
		strings.Repeat("\x00", MaxFrame), string(random),
	}
	for _, compress := range []bool{false, true} {
		for _, keyed := range []bool{true, false} {
			t.Run(fmt.Sprintf("gzip %v keys %v", compress, keyed), func(t *testing.T) {
				a, b := pair(t, func(c *Config, s *StreamsConfig) {
					s.Compress = compress
					s.ControlBytes = 3 * MaxFrame
					if !keyed {
						c.Keyring = nil
					}
				})
				for _, f := range frames {
					if !a.Send("b", []byte(f), Data) || !b.Send("a", []byte(f), Control) {
						t.Fatal("Send refused")
					}
				}
				for _, m := range []struct {
					at   *member
					from MemberID
				}{{b, "a"}, {a, "b"}} {
					eventually(t, "all frames arrived", func() bool { return m.at.total() == len(frames) })
					got := m.at.from(m.from)
					slices.Sort(got)
					want := slices.Sorted(slices.Values(frames))
					if !slices.Equal(got, want) {
						t.Errorf("frames from %s differ from what was sent", m.from)
					}
				}
				if s := a.Stats(); s.FramesOut != uint64(len(frames)) || s.FramesIn != uint64(len(frames)) {
					t.Errorf("frames out %d in %d, want %d", s.FramesOut, s.FramesIn, len(frames))
				}
				if s := a.Stats(); compress && s.FrameBytesOut > uint64(len(random))*9/4 {
					t.Errorf("%d bytes written, nothing was compressed", s.FrameBytesOut)
				}
			})
		}
	}
}

// Both sides send at the same moment, again and again with new transports:
// each time one stream remains and no frame is lost.
func TestBothDial(t *testing.T) {
	for range 15 {
		a, b := pair(t, nil)
		const n = 50
		start := make(chan struct{})
		done := make(chan bool)
		for from, to := range map[*member]MemberID{a: "b", b: "a"} {
			go func() {
				<-start
				for i := range n {
					from.Send(to, []byte(frameOf(i)), Data)
				}
				done <- true
			}()
		}
		close(start)
		<-done
		<-done
		eventually(t, "all frames arrived", func() bool { return a.total() == n && b.total() == n })
		eventually(t, "one stream remains", func() bool {
			return a.Stats().Streams == 1 && b.Stats().Streams == 1
		})
		pa, pb := a.Peers(), b.Peers()
		if len(pa) != 1 || len(pb) != 1 || pa[0].Dialed == pb[0].Dialed {
			t.Fatalf("peers %+v and %+v are not the ends of one stream", pa, pb)
		}
		if d := a.Stats().FrameDrops; d.Total() != 0 {
			t.Fatalf("frames dropped: %v", d)
		}
	}
}

func TestSendNeverBlocks(t *testing.T) {
	block := make(chan struct{})
	var first atomic.Bool
	a, b := pair(t, func(_ *Config, s *StreamsConfig) {
		s.Handler = func(MemberID, []byte) {
			first.Store(true)
			<-block
		}
		s.DataBytes, s.QueueFrames = 1<<20, 100
	})
	_ = b
	frame := make([]byte, 64<<10)
	refused := 0
	for range 2000 {
		if !a.Send("b", frame, Data) {
			refused++
		}
	}
	if refused == 0 {
		t.Error("a peer that reads nothing took 125 MiB")
	}
	if !a.Send("b", []byte("urgent"), Control) {
		t.Error("a control frame was refused because data waits")
	}
	s := a.Stats()
	if got := s.FrameDrops.Of(ReasonQueueFull); got != uint64(refused) {
		t.Errorf("%d drops counted, %d were refused", got, refused)
	}
	if s.QueueBytes > 1<<20+100 {
		t.Errorf("%d bytes are queued, the bound is 1 MiB", s.QueueBytes)
	}
	eventually(t, "the handler was called", first.Load)
	close(block)
}

func TestControlFirst(t *testing.T) {
	release := make(chan struct{})
	at := new(book)
	b := newMember(t, at, Config{ID: "b", Keyring: testRing(t, 1)}, nil)
	addr, _ := at.resolve("b")
	a := newMember(t, at, Config{ID: "a", Keyring: testRing(t, 1)}, func(c *StreamsConfig) {
		c.Resolve = func(MemberID) (netip.AddrPort, bool) {
			<-release // frames wait until all are queued
			return addr, true
		}
	})
	for i := range 5 {
		a.Send("b", []byte(fmt.Sprint("eager ", i)), Eager)
		a.Send("b", []byte(fmt.Sprint("data ", i)), Data)
		a.Send("b", []byte(fmt.Sprint("control ", i)), Control)
	}
	close(release)
	eventually(t, "all arrived", func() bool { return b.total() == 15 })
	var want []string
	for _, kind := range []string{"control ", "data ", "eager "} {
		for i := range 5 {
			want = append(want, kind+fmt.Sprint(i))
		}
	}
	if got := b.from("a"); !slices.Equal(got, want) {
		t.Errorf("order %q, want %q", got, want)
	}
}

func TestSendRefuses(t *testing.T) {
	a, _ := pair(t, nil)
	for _, tc := range []struct {
		name  string
		to    MemberID
		frame []byte
		why   Reason
	}{
		{"too large", "b", make([]byte, MaxFrame+1), ReasonOversize},
		{"to itself", "a", []byte("x"), ReasonIdentity},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if a.Send(tc.to, tc.frame, Data) {
				t.Error("taken")
			}
			if d := a.Stats().FrameDrops; d.Of(tc.why) != 1 {
				t.Errorf("drops %v, want one for %s", d, tc.why)
			}
		})
	}
}

func TestUnreachablePeer(t *testing.T) {
	a, _ := pair(t, func(_ *Config, s *StreamsConfig) {
		s.BackoffMin, s.BackoffMax = time.Hour, time.Hour
	})
	if !a.Send("nobody", []byte("x"), Data) {
		t.Fatal("the first frame is refused before an attempt")
	}
	eventually(t, "the frame is dropped", func() bool { d := a.Stats().FrameDrops; return d.Of(ReasonUnreachable) == 1 })
	if a.Send("nobody", []byte("x"), Data) {
		t.Error("taken during the backoff")
	}
}

// A peer that goes away and returns at the same address is found again.
func TestPeerReturns(t *testing.T) {
	a, b := pair(t, func(_ *Config, s *StreamsConfig) {
		s.BackoffMin, s.BackoffMax = 20*time.Millisecond, 50*time.Millisecond
	})
	a.Send("b", []byte("one"), Data)
	eventually(t, "it arrived", func() bool { return b.total() == 1 })
	at := b.Addr()
	b.Shutdown()
	eventually(t, "the stream ended", func() bool { return len(a.Peers()) == 0 })
	again := new(book)
	b2 := newMember(t, again, Config{ID: "b", Label: "test", Bind: at, Keyring: testRing(t, 1)}, nil)
	eventually(t, "the peer is found again", func() bool {
		a.Send("b", []byte("two"), Data)
		return b2.total() > 0
	})
}

// A peer that was killed leaves its end of the stream open at ours. Its next
// process is let in at once, though its id says that ours should win.
func TestPeerRestartReplacesStream(t *testing.T) {
	at := new(book)
	a := newMember(t, at, Config{ID: "a", Keyring: testRing(t, 1)}, nil)
	b1 := newMember(t, at, Config{ID: "b", Keyring: testRing(t, 1)}, nil)
	a.Send("b", []byte("one"), Data)
	eventually(t, "stream is open", func() bool { return b1.total() == 1 })
	b2 := newMember(t, at, Config{ID: "b", Keyring: testRing(t, 1)}, nil)
	b2.Send("a", []byte("two"), Data)
	eventually(t, "frame of the new process arrived", func() bool { return a.total() == 1 })
	a.Send("b", []byte("three"), Data)
	eventually(t, "frames go to the new process", func() bool { return b2.total() == 1 })
	if b1.total() != 1 {
		t.Errorf("the old process got %d frames, want 1", b1.total())
	}
}

func TestHandlerPanic(t *testing.T) {
	var calls atomic.Int32
	a, b := pair(t, func(_ *Config, s *StreamsConfig) {
		s.Handler = func(_ MemberID, frame []byte) {
			calls.Add(1)
			if bytes.Equal(frame, []byte("bad")) {
				panic("bad frame")
			}
		}
	})
	a.Send("b", []byte("bad"), Data)
	a.Send("b", []byte("good"), Data)
	eventually(t, "both were handled", func() bool { return calls.Load() == 2 })
	if d := b.Stats().StreamDrops; d.Of(ReasonPanic) != 1 {
		t.Errorf("drops %v, want one panic", d)
	}
	if len(b.Peers()) != 1 {
		t.Error("the stream ended")
	}
}

func TestStreamLimit(t *testing.T) {
	at := new(book)
	hub := newMember(t, at, Config{ID: "hub", Keyring: testRing(t, 1)}, func(c *StreamsConfig) { c.MaxStreams = 2 })
	var ms []*member
	for i := range 4 {
		m := newMember(t, at, Config{ID: MemberID(fmt.Sprint("m", i)), Keyring: testRing(t, 1)}, nil)
		m.Send("hub", []byte("x"), Data)
		ms = append(ms, m)
	}
	eventually(t, "two are refused", func() bool { d := hub.Stats().StreamDrops; return d.Of(ReasonLimit) == 2 })
	eventually(t, "two are in", func() bool { return hub.total() == 2 })
	refused := 0
	eventually(t, "the refused know", func() bool {
		refused = 0
		for _, m := range ms {
			if d := m.Stats().StreamDrops; d.Of(ReasonLimit) > 0 {
				refused++
			}
		}
		return refused == 2
	})
	if hub.Send("m9", []byte("x"), Data) {
		t.Error("a dial beyond the limit is begun")
	}
}

func TestUpAndDown(t *testing.T) {
	events := make(chan string, 16)
	a, b := pair(t, func(c *Config, s *StreamsConfig) {
		if c.ID == "a" {
			s.Up = func(id MemberID) { events <- "up " + string(id) }
			s.Down = func(id MemberID, r Reason) { events <- "down " + string(id) + " " + r.String() }
		}
	})
	a.Send("b", []byte("x"), Data)
	if got := <-events; got != "up b" {
		t.Errorf("event %q, want up b", got)
	}
	eventually(t, "the stream is open at both", func() bool { return b.total() == 1 })
	b.Disconnect("a")
	if got := <-events; got != "down b remote" {
		t.Errorf("event %q, want down b remote", got)
	}
	eventually(t, "both have closed", func() bool {
		return a.Stats().Streams == 0 && b.Stats().Streams == 0
	})
	if c := b.Stats().Closes; c.Of(ReasonClosed) != 1 {
		t.Errorf("closes %v, want one by this side", c)
	}
}
