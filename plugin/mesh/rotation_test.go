package mesh_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/mesh"
)

// TestRotation replaces the key of a running mesh without losing a change.
func TestRotation(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newNetWorld(mesh.CRDT, key(1))
		a, b, d := group(t, w)
		want := []string{}
		change := func(when string) {
			t.Helper()
			id := fmt.Sprintf("i%02d", len(want))
			want = append(want, id)
			a.register(t, "web", id)
			wantAnswers(t, w, "web", want, a, b, d)
			if t.Failed() {
				t.Fatal(when)
			}
		}
		change("before")
		for _, ring := range [][][]byte{{key(1), key(2)}, {key(2), key(1)}, {key(2)}} {
			for _, n := range []*node{a, b, d} {
				if err := n.SetKeys(ring); err != nil {
					t.Fatal(err)
				}
				change(fmt.Sprintf("%s has %d keys", n.id, len(ring)))
			}
		}
		<-time.After(time.Minute)
		change("a minute later")
		if got := a.Keys(); len(got) != 1 {
			t.Errorf("keys %v", got)
		}
		if err := a.SetKeys(nil); err == nil {
			t.Error("an empty ring was accepted")
		}
		for _, n := range []*node{a, b, d} {
			for _, m := range n.Members() {
				if m.State != mesh.Alive {
					t.Errorf("%s holds %s %v", n.id, m.ID, m.State)
				}
			}
		}
	})
}

// TestRotationUnderTraffic turns the ring at each member again and again while
// changes are written without a pause: each is everywhere a second later, and
// nobody is ever held for anything but alive.
func TestRotationUnderTraffic(t *testing.T) {
	for _, impl := range []mesh.Impl{mesh.CRDT, mesh.Memberlist} {
		t.Run(string(impl), func(t *testing.T) {
			inBubble(t, func(t *testing.T) { rotateUnderTraffic(t, newNetWorld(impl, key(1))) })
		})
	}
}

func rotateUnderTraffic(t *testing.T, w *netWorld) {
	var mu sync.Mutex
	var fell []string
	watch := func(c *mesh.Config) {
		c.OnMember = func(m mesh.Member) {
			mu.Lock()
			defer mu.Unlock()
			if m.State != mesh.Alive {
				fell = append(fell, fmt.Sprint(m.ID, " is ", m.State))
			}
		}
	}
	a := start(t, w, "agent-a", mesh.RoleAgent, watch)
	nodes := []*node{a, start(t, w, "agent-b", mesh.RoleAgent, watch, a), start(t, w, "dns-1", mesh.RoleDNS, watch, a)}
	whole(t, nodes, 10*time.Second)

	stop := make(chan struct{})
	var writers sync.WaitGroup
	var want []string
	pause := 20 * time.Millisecond
	if w.impl == mesh.Memberlist {
		pause = time.Second // more than that its broadcasts do not carry
	}
	for i, n := range nodes[:2] {
		writers.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				id := fmt.Sprintf("%c%05d", 'a'+i, j)
				n.register(t, "web", id)
				mu.Lock()
				want = append(want, id)
				mu.Unlock()
			}
		})
	}
	for turn := range 4 {
		old, next := key(byte(turn+1)), key(byte(turn+2))
		for _, ring := range [][][]byte{{old, next}, {next, old}, {next}} {
			for _, n := range nodes {
				if err := n.SetKeys(ring); err != nil {
					t.Error(err)
				}
				<-time.After(150 * time.Millisecond)
			}
		}
	}
	close(stop)
	writers.Wait()
	slices.Sort(want)
	news := time.Second
	if w.impl == mesh.Memberlist {
		news = 15 * time.Second // what a broadcast does not reach comes with the next exchange
	}
	for _, n := range nodes {
		eventually(t, news, n.id+" lacks changes", func() bool { return slices.Equal(n.answers("web"), want) })
		if got := n.Keys(); len(got) != 1 {
			t.Errorf("%s holds the keys %v, want one", n.id, got)
		}
		for _, reason := range []string{"wrong_key", "no_key", "forged", "handshake"} {
			if d := n.Stats().Dropped[reason]; d > 0 {
				t.Errorf("%s dropped %d: %s", n.id, d, reason)
			}
		}
	}
	<-time.After(time.Minute)
	mu.Lock()
	defer mu.Unlock()
	if len(fell) > 0 {
		t.Errorf("members fell: %v", fell)
	}
}
