package catalog_test

import (
	"errors"
	"testing"

	"github.com/fluid-sd/fluid/plugin/catalog"
)

// TestRelayFrames brings a reader without failure detection to the same view.
func TestRelayFrames(t *testing.T) {
	agent := catalog.New()
	a, b := newHost(t, 1, agent), newHost(t, 2, agent)
	a.register(start, instance("web", "a"))
	for _, id := range []string{"b", "c", "d"} {
		b.register(start, instance("web", id))
	}
	a.members(start, catalog.MemberDead, catalog.MemberDead)

	reader := catalog.New()
	relay := func(now int64) {
		t.Helper()
		for _, h := range agent.Heads() {
			for _, d := range agent.Pull(catalog.Want{Origin: h.Origin}, 1<<20) {
				if _, err := reader.TakeFrame(now, d.Append(nil)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := reader.TakeFrame(now, agent.MemberFrame()); err != nil {
			t.Fatal(err)
		}
	}
	relay(start)
	wantView(t, reader, "within the hold-down", "web", "a", "b", "c", "d")
	reader.Advance(start + 31_000)
	wantView(t, reader, "after it", "web", "b", "c", "d")
	a.members(start+40_000, catalog.MemberAlive, catalog.MemberAlive)
	relay(start + 40_000)
	wantView(t, reader, "back", "web", "a", "b", "c", "d")

	frame := agent.MemberFrame()
	for i := range frame {
		if _, err := reader.TakeFrame(start, frame[:i]); !errors.Is(err, catalog.ErrDelta) {
			t.Errorf("%d of %d bytes: %v", i, len(frame), err)
		}
	}
	wantView(t, reader, "after the noise", "web", "a", "b", "c", "d")
}

func TestOrigins(t *testing.T) {
	c := catalog.New()
	a, b := newHost(t, 1, c), newHost(t, 2, c)
	a.register(start, instance("web", "x"))
	in := instance("web", "x")
	it, _, err := b.ow.Register(start+1000, &in) // by a clock a second ahead
	if err != nil {
		t.Fatal(err)
	}
	b.commit(start, it)
	got := c.Origins()
	if len(got) != 2 || got[0].Node.Name != "n1" || got[0].Records != 2 || got[0].Skewed || !got[1].Skewed {
		t.Errorf("origins %+v", got)
	}
	if c.Conflicts() != 1 {
		t.Errorf("%d conflicts, want 1", c.Conflicts())
	}
	if c.Memory() == 0 {
		t.Error("no memory counted")
	}
}
