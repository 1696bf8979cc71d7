package feed

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/fluid-sd/fluid/plugin/record"
)

// step is one thing that happens to the agent, the connection or the sink.
type step struct {
	kind string
	n    int
	wait time.Duration // that goes by afterwards; 0: the next step comes at once
}

var stepKinds = []string{
	"put", "put", "put", "burst", "del", "compact", "generation", "reset to lower index",
	"back", "catch up", "cut", "restart", "stop", "start",
	"slow sink", "fast sink", "sink refuses", "sink panics", "sink moves on", "sink diverges",
}

func drawSteps(rt *rapid.T) []step {
	return rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
		return step{
			kind: rapid.SampledFrom(stepKinds).Draw(rt, "kind"),
			n:    rapid.IntRange(0, 9).Draw(rt, "n"),
			wait: rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, time.Second, 10 * time.Second}).Draw(rt, "wait"),
		}
	}), 1, 60).Draw(rt, "steps")
}

// TestModel: whatever happens to the agent, the connection and the sink, the
// sink's state always equals some state of the agent and never goes back, and
// once things are quiet it equals the current one.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := drawSteps(rt)
		var failure error
		synctest.Test(t, func(t *testing.T) { failure = runSteps(t, steps) })
		if failure != nil {
			rt.Fatal(failure)
		}
	})
}

func runSteps(t *testing.T, steps []step) error {
	src := newSource()
	sink := newSink(src)
	h := newHost(t, src)
	h.start()
	defer h.stop()
	c, stop := h.connect("m1", sink, false)
	defer stop()
	for _, s := range steps {
		perform(s, src, sink, h)
		if s.wait > 0 {
			pass(s.wait)
		}
	}
	sink.do(func() { sink.delay, sink.refuse, sink.panics = 0, nil, false })
	src.catchUp()
	h.stop()
	h.start()
	src.put("i/last/1", "x")
	pass(time.Minute) // a slow sink finishes, a client that backs off returns
	if sink.bad != nil {
		return sink.bad
	}
	if got, want := sink.position(), src.State().Position(); got != want {
		return fmt.Errorf("position when quiet: got %v, want %v\nstates: %q\n%+v", got, want, sink.states, c.Stats())
	}
	if got, want := sink.Hello().Hash, src.State().Hash(); got != want {
		return fmt.Errorf("content when quiet: got %x, want %x", got, want)
	}
	m, _ := h.server.Members()
	if len(m) != 1 || m[0].Applied != sink.position() {
		return fmt.Errorf("members when quiet: got %+v, want %v applied", m, sink.position())
	}
	return nil
}

func perform(s step, src *memSource, sink *memSink, h *host) {
	key := fmt.Sprintf("i/a/%d", s.n)
	switch s.kind {
	case "put":
		src.put(key, strings.Repeat("v", 10*s.n))
	case "burst":
		for i := range 10 * s.n {
			src.put(fmt.Sprintf("i/b/%d", i), fmt.Sprint(i, s.n))
		}
	case "del":
		src.del(key)
	case "compact":
		src.compact()
	case "generation":
		src.edit(func(st *memState) { st.pos.Generation++; st.floor = 0 })
	case "reset to lower index":
		src.edit(func(st *memState) {
			st.pos = record.Position{Generation: st.pos.Generation + 1, Index: 1}
			st.floor = 0
			st.all = map[record.Key]record.Entry{"i/r/1": {Key: "i/r/1", Value: "r", Index: 1}}
		})
	case "back":
		// An agent that goes back has restarted: no stream outlives that.
		h.stop()
		src.back(s.n)
		h.start()
	case "catch up":
		src.catchUp()
	case "cut":
		h.cut()
	case "restart":
		h.stop()
		h.start()
	case "stop":
		h.stop()
	case "start":
		h.stop()
		h.start()
	case "slow sink":
		sink.do(func() { sink.delay = time.Duration(s.n) * time.Second })
	case "fast sink":
		sink.do(func() { sink.delay = 0 })
	case "sink refuses":
		sink.do(func() { sink.refuse = errors.New("refused") })
	case "sink panics":
		sink.do(func() { sink.panics = true })
	case "sink moves on": // as through the mesh
		src.mu.Lock()
		st := src.history[len(src.history)-1]
		src.mu.Unlock()
		sink.do(func() {
			if sink.delay == 0 && sink.pos.Before(st.pos) {
				sink.pos, sink.all = st.pos, live(st)
			}
		})
	case "sink diverges": // a bit flips
		sink.do(func() {
			if sink.delay == 0 && !sink.pos.IsZero() {
				sink.spoil()
			}
		})
	}
}

func live(st *memState) map[record.Key]record.Entry {
	all := map[record.Key]record.Entry{}
	for e := range st.Entries() {
		all[e.Key] = e
	}
	return all
}
