package feed

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluid-sd/fluid/plugin/feed/feedpb"
	"github.com/fluid-sd/fluid/plugin/record"
)

// bubble runs f in fake time with a source, a sink and a host.
func bubble(t *testing.T, f func(t *testing.T, src *memSource, sink *memSink, h *host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		src := newSource()
		sink := newSink(src)
		h := newHost(t, src)
		defer h.stop()
		f(t, src, sink, h)
		if sink.bad != nil {
			t.Error(sink.bad)
		}
	})
}

// pass lets fake time go by and everything settle.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func wantSynced(t *testing.T, src *memSource, sink *memSink) {
	t.Helper()
	synctest.Wait()
	if got, want := sink.position(), src.State().Position(); got != want {
		t.Fatalf("position: got %v, want %v", got, want)
	}
	if got, want := sink.Hello().Hash, src.State().Hash(); got != want {
		t.Fatalf("content hash: got %x, want %x", got, want)
	}
}

func TestNothingIsSentBeforeTheFirstCommit(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
		h.start()
		_, stop := h.connect("m1", sink, false)
		defer stop()
		pass(10 * time.Second)
		if got := sink.position(); !got.IsZero() {
			t.Errorf("position: got %v, want zero", got)
		}
		src.put("i/a/1", "x")
		wantSynced(t, src, sink)
	})
}

func TestRestartResumesWithoutSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
		h.start()
		c, stop := h.connect("m1", sink, false)
		defer stop()
		for i := range 50 {
			src.put(fmt.Sprintf("i/a/%d", i), strings.Repeat("x", 50))
		}
		wantSynced(t, src, sink)

		h.stop()
		pass(time.Minute)
		wantSynced(t, src, sink) // kept while nobody is there
		src.put("i/b/1", "y")
		src.del("i/a/7")
		srv := h.start()
		pass(5 * time.Second)
		wantSynced(t, src, sink)
		h.cut()
		pass(5 * time.Second) // nothing new: an empty resume

		if got := c.Stats(); got.Snapshots != 1 || got.Resumes != 2 || got.Connects != 3 {
			t.Errorf("client: got %+v, want 1 snapshot, 2 resumes and 3 connects", got)
		}
		if got := srv.Stats(); got.Snapshots != 0 || got.Resumes != 2 || got.Batches != 1 {
			t.Errorf("server: got %+v, want 0 snapshots, 2 resumes, 1 batch", got)
		}
	})
}

func TestSnapshotWhereResumeIsImpossible(t *testing.T) {
	tests := []struct {
		name string
		do   func(src *memSource)
	}{
		{"below the tombstone floor", func(src *memSource) { src.del("i/a/1"); src.compact() }},
		{"new generation, lower index", func(src *memSource) {
			src.edit(func(st *memState) {
				st.pos = record.Position{Generation: 2, Index: 1}
				st.all = map[record.Key]record.Entry{"i/z/1": {Key: "i/z/1", Value: "z", Index: 1}}
			})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, connected := range []bool{true, false} {
				bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
					h.start()
					c, stop := h.connect("m1", sink, false)
					defer stop()
					src.put("i/a/1", "x")
					src.put("i/a/2", "x")
					wantSynced(t, src, sink)
					if !connected {
						h.stop()
					}
					tt.do(src)
					if !connected {
						h.start()
						pass(5 * time.Second)
					}
					wantSynced(t, src, sink)
					if got := c.Stats().Snapshots; !connected && got != 2 {
						t.Errorf("snapshots: got %d, want 2", got)
					}
				})
			}
		})
	}
}

func TestServerBehindWaits(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
		h.start()
		c, stop := h.connect("m1", sink, false)
		defer stop()
		for i := range 10 {
			src.put("i/a/1", fmt.Sprint(i))
		}
		wantSynced(t, src, sink)
		at := sink.position()
		h.stop()
		src.back(5)
		srv := h.start()
		pass(30 * time.Second)
		if got := sink.position(); got != at {
			t.Errorf("position while the agent is behind: got %v, want %v", got, at)
		}
		if hb := sink.beats[len(sink.beats)-1]; !hb.Behind || !hb.Applied.Before(at) {
			t.Errorf("heartbeat: got %+v, want one that says behind", hb)
		}
		if got := c.Stats().Behind; got != 1 {
			t.Errorf("behind: got %d, want 1", got)
		}
		// The position that the client reports is above all that is known.
		if got := srv.Stats().BadAcks; got == 0 {
			t.Error("bad acknowledgements: got none")
		}
		if m, _ := srv.Members(); !m[0].Applied.IsZero() {
			t.Errorf("member applied: got %v, want zero", m[0].Applied)
		}
		src.catchUp()
		pass(2 * time.Second)
		if hb := sink.beats[len(sink.beats)-1]; hb.Behind {
			t.Error("heartbeat after catching up says behind")
		}
		if m, _ := srv.Members(); m[0].Applied != at {
			t.Errorf("member applied: got %v, want %v", m[0].Applied, at)
		}
		src.put("i/a/2", "new")
		wantSynced(t, src, sink)
		if got := c.Stats(); got.Snapshots != 1 || got.Resumes != 1 {
			t.Errorf("client: got %+v, want 1 snapshot and 1 resume", got)
		}
	})
}

func TestSinkErrorsAreRepaired(t *testing.T) {
	tests := []struct {
		name      string
		spoil     func(sink *memSink)
		snapshots uint64 // wanted, with the first
	}{
		{"refuses", func(k *memSink) { k.refuse = errors.New("disk full") }, 2},
		{"panics", func(k *memSink) { k.panics = true }, 2},
		{"moved on by other means", func(k *memSink) {
			st := k.src.history[len(k.src.history)-1]
			k.all, k.pos = st.all, st.pos
		}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
				h.start()
				c, stop := h.connect("m1", sink, false)
				defer stop()
				src.put("i/a/1", "x")
				wantSynced(t, src, sink)
				src.back(1) // so that the next change is there, and not yet seen
				src.cur++
				sink.do(func() { tt.spoil(sink) })
				src.put("i/a/2", "x")
				src.put("i/a/3", "x")
				pass(5 * time.Second)
				wantSynced(t, src, sink)
				if got := c.Stats().Snapshots; got != tt.snapshots {
					t.Errorf("snapshots: got %d, want %d", got, tt.snapshots)
				}
			})
		})
	}
}

func TestDivergenceIsRepaired(t *testing.T) {
	for _, connected := range []bool{true, false} {
		t.Run(fmt.Sprintf("connected=%v", connected), func(t *testing.T) {
			bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
				h.start()
				c, stop := h.connect("m1", sink, false)
				defer stop()
				src.put("i/a/1", "x")
				wantSynced(t, src, sink)
				if !connected {
					h.stop()
				}
				sink.do(sink.spoil)
				if !connected {
					h.start()
				}
				pass(5 * time.Second)
				wantSynced(t, src, sink)
				if got := c.Stats(); got.Snapshots != 2 {
					t.Errorf("client: got %+v, want 2 snapshots", got)
				}
			})
		})
	}
}

func TestSlowSinkGetsFewerBatches(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
		srv := h.start()
		c, stop := h.connect("m1", sink, false)
		defer stop()
		src.put("i/a/1", "x")
		wantSynced(t, src, sink)
		sink.do(func() { sink.delay = 20 * time.Second }) // far beyond three heartbeats
		value := strings.Repeat("x", 1000)
		for range 5000 {
			src.put("i/a/1", value)
			pass(time.Millisecond)
		}
		sink.do(func() { sink.delay = 0 })
		pass(time.Hour)
		wantSynced(t, src, sink)
		if got := c.Stats(); got.Connects != 1 || got.Snapshots != 1 {
			t.Errorf("client: got %+v, want 1 connect and 1 snapshot", got)
		}
		// What is in flight is bounded by the flow control windows.
		if got := srv.Stats().Batches; got > 2000 {
			t.Errorf("batches: got %d for 5000 changes, want most of them coalesced", got)
		}
	})
}

func TestMembers(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
		srv := h.start()
		m, changed := srv.Members()
		if len(m) != 0 {
			t.Fatalf("members: got %v, want none", m)
		}
		src.put("i/a/1", "x")
		_, stop := h.connect("m1", sink, false)
		<-changed
		wantSynced(t, src, sink)
		m, changed = srv.Members()
		want := Member{ID: "m1", Name: "m1", Connected: true, Applied: src.State().Position(), ClientTTL: 5 * time.Second}
		if len(m) != 1 || m[0].ID != want.ID || m[0].Applied != want.Applied || m[0].ClientTTL != want.ClientTTL || !m[0].Connected || !slices.Equal(m[0].Zones, []string{"fluid.internal."}) {
			t.Fatalf("members: got %+v, want %+v", m, want)
		}
		sink.do(func() { sink.ttl = time.Minute })
		pass(time.Second) // told with the next heartbeat
		<-changed
		m, changed = srv.Members()
		if m[0].ClientTTL != time.Minute {
			t.Errorf("client TTL: got %v, want 1m", m[0].ClientTTL)
		}
		stop()
		<-changed
		m, _ = srv.Members()
		if m[0].Connected || m[0].Applied != want.Applied {
			t.Errorf("member that left: got %+v, want it kept", m[0])
		}
	})
}

// TestVolatileIsNotAcknowledged: what a restart of the plugin would lose does
// not count as applied, over a new session either, until it is on disk.
func TestVolatileIsNotAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
		srv := h.start()
		c, stop := h.connect("m1", sink, false)
		defer stop()
		src.put("i/a/1", "x")
		wantSynced(t, src, sink)
		kept := sink.position()
		sink.do(func() { sink.lossy = true })
		src.put("i/a/2", "x")
		wantSynced(t, src, sink)
		wantApplied := func(want record.Position) {
			t.Helper()
			pass(2 * time.Second)
			if m, _ := srv.Members(); len(m) != 1 || m[0].Applied != want {
				t.Errorf("members: got %+v, want one that applied %v", m, want)
			}
		}
		wantApplied(kept)
		h.cut()
		wantApplied(kept)
		if got := c.Stats(); got.Snapshots != 1 || got.Resumes != 1 {
			t.Errorf("client: got %+v, want it to resume", got)
		}
		sink.do(func() { sink.lossy = false })
		wantApplied(src.State().Position())
	})
}

func TestMembersThatLeftAreBounded(t *testing.T) {
	m := newMembers(3)
	var live []*Member
	for i := range 10 {
		e := m.connect(Member{ID: fmt.Sprint(i)}, true)
		if i%2 == 0 && i < 4 {
			live = append(live, e)
		} else {
			m.disconnect(e)
		}
	}
	got, _ := m.snapshot()
	if len(got) != 3 || got[0].ID != live[0].ID || got[1].ID != live[1].ID {
		t.Errorf("got %+v, want 3 with the connected ones", got)
	}
}

func TestStopWithClientThatDoesNotRead(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, _ *memSink, h *host) {
		value := strings.Repeat("v", 1000)
		src.edit(func(st *memState) {
			for i := range 5000 { // more than the windows hold
				key := record.Key(fmt.Sprintf("i/a/%d", i))
				st.all[key] = record.Entry{Key: key, Value: value, Index: 1}
			}
		})
		srv := h.start()
		stream, done := raw(t, h)
		defer done()
		if err := stream.Send(helloFrame(&feedpb.Hello{ProtocolMin: 1, ProtocolMax: 1, MemberId: "m"})); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if got := srv.Stats(); got.Sessions != 1 || got.Snapshots != 0 {
			t.Fatalf("got %+v, want one session that waits for its client", got)
		}
		// Others are served meanwhile.
		sink := newSink(src)
		_, stop := h.connect("m2", sink, false)
		defer stop()
		pass(time.Second)
		wantSynced(t, src, sink)
		h.stop() // returns, or the bubble deadlocks
	})
}

func TestSilentServerIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
		h.cfg.Heartbeat = time.Hour // it says 10 s at most
		src.put("i/a/1", "x")
		h.start()
		c, stop := h.connect("m1", sink, false)
		defer stop()
		pass(29 * time.Second)
		if got := c.Stats(); got.Connects != 1 || got.Failures != 0 {
			t.Errorf("after 29 s: got %+v, want one connection", got)
		}
		pass(2 * time.Second)
		if got := c.Stats(); got.Failures != 1 || got.Connects != 2 || !strings.Contains(sink.states[1], ErrSilent.Error()) {
			t.Errorf("after 31 s: got %+v, %q, want a new connection", got, sink.states)
		}
		wantSynced(t, src, sink)
	})
}
