package feed

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// memRelay has one origin whose frames are numbered.
type memRelay struct {
	mu      sync.Mutex
	frames  []string
	changed chan struct{}
	huge    bool
}

var relayOrigin = record.OriginID{1}

func (r *memRelay) Since(have Vector) (iter.Seq[[]byte], Vector, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var from uint64
	for _, w := range have {
		from = w.Seq
	}
	var out [][]byte
	for _, f := range r.frames[from:] {
		out = append(out, []byte(f))
	}
	if r.huge {
		out = append(out, make([]byte, MaxRelayFrame+1))
	}
	n := uint64(len(r.frames))
	return slices.Values(out), Vector{{Origin: relayOrigin, Epoch: 1, Seq: n}}, n
}

func (r *memRelay) Changed(version uint64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if version < uint64(len(r.frames)) {
		done := make(chan struct{})
		close(done)
		return done
	}
	return r.changed
}

func (r *memRelay) add(frame string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frames = append(r.frames, frame)
	close(r.changed)
	r.changed = make(chan struct{})
}

// relaySink remembers how far it is.
type relaySink struct {
	*memSink
	fail bool
}

func (k *relaySink) Relay(frame []byte) error {
	if k.fail {
		k.fail = false
		return errors.New("no room")
	}
	_ = k.memSink.Relay(frame)
	k.do(func() { k.vec = Vector{{Origin: relayOrigin, Epoch: 1, Seq: uint64(len(k.frames))}} })
	return nil
}

func TestRelay(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, mem *memSink, h *host) {
		r := &memRelay{changed: make(chan struct{})}
		h.cfg.Relay = r
		sink := &relaySink{memSink: mem}
		var want []string
		add := func(n int) {
			frame := fmt.Sprintf("%d:%s", len(want), strings.Repeat("x", n))
			want = append(want, frame)
			r.add(frame)
		}
		add(3)
		add(5000) // several parts
		h.start()
		c, stop := h.connect("m1", sink, true)
		defer stop()
		silent := newSink(src)
		_, stop2 := h.connect("m2", silent, false)
		defer stop2()
		pass(time.Second)
		add(200) // one part exactly
		add(0)
		pass(time.Second)
		h.stop()
		add(1)
		h.start()
		pass(5 * time.Second)
		sink.fail = true
		add(2)
		pass(5 * time.Second)
		src.put("i/a/1", "x") // committed state goes on beside it
		wantSynced(t, src, mem)
		if !slices.Equal(mem.frames, want) {
			t.Errorf("frames: got %d, want %d, each once and in order", len(mem.frames), len(want))
		}
		if len(silent.frames) != 0 {
			t.Error("a client that asked for no relay was given frames")
		}
		if got := c.Stats().Relayed; got != uint64(len(want)) {
			t.Errorf("relayed: got %d, want %d", got, len(want))
		}
	})
}

func TestRelayFrameTooLargeIsNotSent(t *testing.T) {
	bubble(t, func(t *testing.T, _ *memSource, mem *memSink, h *host) {
		h.cfg.Relay = &memRelay{changed: make(chan struct{}), huge: true}
		h.start()
		_, stop := h.connect("m1", mem, true)
		defer stop()
		pass(time.Second)
		if len(mem.frames) != 0 || len(mem.states) < 2 || !strings.Contains(mem.states[1], "relay frame of") {
			t.Errorf("got %d frames, %q; want none and the reason", len(mem.frames), mem.states)
		}
	})
}
