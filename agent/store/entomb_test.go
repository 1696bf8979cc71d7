package store

import (
	"errors"
	"testing"
)

// A removal reaches who follows a client also where the client never had what
// was removed: the mesh can be faster than the client's feed, and the feed
// brings a client over both the registration and the removal at once.
func TestClientTellsRemovals(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	register(t, s, instance("web", "10.0.0.1"))
	c, ahead := openClient(t, t.TempDir(), s), openClient(t, t.TempDir(), s)
	if err := errors.Join(c.Learn(told(s)), ahead.Learn(told(s))); err != nil {
		t.Fatal(err)
	}
	follow(t, c, s.State())
	register(t, s, instance("web", "10.0.0.2"))
	follow(t, ahead, s.State())
	for range 2 { // a removal after a removal leaves the later one
		if _, err := s.DeregisterInstance(t.Context(), Meta{}, "web", "10.0.0.2"); err != nil {
			t.Fatal(err)
		}
		follow(t, c, s.State())
		if n := c.State().Tombstones(); n != 1 {
			t.Errorf("%d tombstones, want 1", n)
		}
		register(t, s, instance("web", "10.0.0.2"))
	}
	if _, err := s.DeregisterInstance(t.Context(), Meta{}, "web", "10.0.0.2"); err != nil {
		t.Fatal(err)
	}
	register(t, s, instance("web", "10.0.0.3"))
	follow(t, c, s.State())
	if n := c.State().Tombstones(); n != 1 {
		t.Errorf("%d tombstones, want 1", n)
	}
	if _, ok := c.State().Since(ahead.State().Position()); !ok {
		t.Fatal("who is ahead is not told what changed")
	}
	follow(t, ahead, c.State())
	same(t, "who was ahead", ahead.State(), s.State())
}
