package transport

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// notes is a memberlist delegate that keeps user messages.
type notes struct {
	mu  sync.Mutex
	got map[string]bool
}

func (n *notes) NotifyMsg(b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.got == nil {
		n.got = make(map[string]bool)
	}
	n.got[string(b)] = true
}

func (n *notes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.got)
}

func (*notes) NodeMeta(int) []byte             { return nil }
func (*notes) GetBroadcasts(int, int) [][]byte { return nil }
func (*notes) LocalState(bool) []byte          { return nil }
func (*notes) MergeRemoteState([]byte, bool)   {}

// mesh is real memberlist with frame streams on loopback.
type mesh struct {
	members []*member
	lists   []*memberlist.Memberlist
	notes   []*notes
	rings   []*Keyring
}

func newMesh(t *testing.T, n int, keys ...byte) *mesh {
	t.Helper()
	m := &mesh{}
	at := new(book)
	for i := range n {
		id := MemberID(fmt.Sprintf("m%02d", i))
		ring := testRing(t, keys...)
		mem := newMember(t, at, Config{ID: id, Label: "prod", Keyring: ring}, func(c *StreamsConfig) { c.Compress = true })
		no := new(notes)
		list := newMemberlist(t, mem.Transport, id, func(c *memberlist.Config) {
			c.Delegate = no
			c.RequireNodeNames = false
			c.GossipInterval = 50 * time.Millisecond
			c.PushPullInterval = 5 * time.Second
		})
		m.members, m.lists, m.notes, m.rings = append(m.members, mem), append(m.lists, list), append(m.notes, no), append(m.rings, ring)
		if i > 0 {
			if _, err := list.Join([]string{m.members[0].Addr().String()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "everybody knows everybody", m.whole)
	return m
}

func (m *mesh) whole() bool {
	for _, l := range m.lists {
		if l.NumMembers() != len(m.lists) {
			return false
		}
	}
	return true
}

func TestMemberlistOnLoopback(t *testing.T) {
	m := newMesh(t, 16, 1)
	// Every way memberlist sends: packets, its streams, our frames.
	last := m.lists[len(m.lists)-1]
	for _, n := range m.lists[0].Members() {
		if n.Name == "m00" {
			continue
		}
		if err := m.lists[0].SendBestEffort(n, []byte("packet")); err != nil {
			t.Fatal(err)
		}
		if err := m.lists[0].SendReliable(n, []byte("stream")); err != nil {
			t.Fatal(err)
		}
		if !m.members[0].Send(MemberID(n.Name), []byte("frame"), Data) {
			t.Fatal("frame refused")
		}
	}
	eventually(t, "all of it arrived", func() bool {
		for i := 1; i < len(m.members); i++ {
			if m.notes[i].count() != 2 || m.members[i].total() != 1 {
				return false
			}
		}
		return true
	})
	// A member with another key, or with the label of another cluster, is not
	// let in, and lets nobody in.
	for _, tc := range []struct {
		name string
		cfg  Config
	}{
		{"wrong key", Config{ID: "x", Label: "prod", Keyring: testRing(t, 9)}},
		{"no key", Config{ID: "x", Label: "prod"}},
		{"wrong label", Config{ID: "x", Label: "prod2", Keyring: testRing(t, 1)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := newMemberlist(t, newTransport(t, tc.cfg), "x", nil)
			if n, err := x.Join([]string{m.members[0].Addr().String()}); n != 0 || err == nil {
				t.Errorf("joined %d members, %v", n, err)
			}
			if n, err := last.Join([]string{x.LocalNode().Address()}); n != 0 || err == nil {
				t.Errorf("a member joined it: %d, %v", n, err)
			}
		})
	}
	if !m.whole() {
		t.Error("a stranger is a member")
	}
	if err := last.Leave(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the leave is seen", func() bool { return m.lists[0].NumMembers() == len(m.lists)-1 })
}

// Keys are changed at every member in turn while frames, packets and streams
// of memberlist go on: none is lost, no member is suspected, and the old key
// opens nothing any more.
func TestRotationLosesNothing(t *testing.T) {
	m := newMesh(t, 10, 1)
	var stop atomic.Bool
	var sent atomic.Int64
	var senders sync.WaitGroup
	for i, from := range m.members {
		senders.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for n := 0; !stop.Load(); n++ {
				to := m.members[(i+1+n%(len(m.members)-1))%len(m.members)]
				if !from.Send(to.cfgID(), []byte(fmt.Sprintf("frame %d of %d, long enough for some gzip: %0300d", n, i, n)), Data) {
					t.Errorf("frame %d of %d refused", n, i)
				}
				sent.Add(1)
				<-tick.C
			}
		})
	}
	received := func() (n int64) {
		for _, mem := range m.members {
			n += int64(mem.total())
		}
		return n
	}
	joins := 0
	progress := func() {
		t.Helper()
		want := received() + 50
		eventually(t, "frames go on", func() bool { return received() >= want })
		// A stream of memberlist, to another member each time.
		joins++
		from, to := m.lists[joins%len(m.lists)], m.members[(joins+1+joins/len(m.lists))%len(m.members)]
		// It may time out on a busy machine; keys are checked at the end.
		eventually(t, "a join succeeds", func() bool {
			_, err := from.Join([]string{to.Addr().String()})
			return err == nil
		})
	}
	k1, k2 := testKey(t, 1), testKey(t, 2)
	progress()
	for _, step := range []func(*Keyring) error{
		func(r *Keyring) error { return r.Add(k2) },
		func(r *Keyring) error { return r.Use(k2.ID()) },
		func(r *Keyring) error { return r.Remove(k1.ID()) },
	} {
		for _, r := range m.rings {
			if err := step(r); err != nil {
				t.Fatal(err)
			}
			progress()
		}
	}
	// Longer than a stream may live without a key of the ring.
	eventually(t, "the grace has passed", graceOver())
	progress()
	stop.Store(true)
	senders.Wait()
	eventually(t, "every frame arrived", func() bool { return received() == sent.Load() })
	for _, mem := range m.members {
		s := mem.Stats()
		// Streams that timed out on a busy machine are not about keys.
		streams := s.StreamDrops.Total() - s.StreamDrops.Of(ReasonHandshake)
		if s.FrameDrops.Total() != 0 || s.PacketDrops.Total() != 0 || streams != 0 || s.Closes.Of(ReasonKeyRemoved) != 0 {
			t.Errorf("%s: frames dropped %v, packets %v, streams %v, closes %v", mem, s.FrameDrops, s.PacketDrops, s.StreamDrops, s.Closes)
		}
	}
	if !m.whole() {
		t.Error("a member was lost")
	}
	old := newTransport(t, Config{ID: "old", Label: "prod", Keyring: testRing(t, 1)})
	if s, err := old.open(t.Context(), m.members[0].Addr(), kindFrames, ""); err == nil {
		s.Close()
		t.Error("the old key still opens streams")
	}
}

func graceOver() func() bool {
	end := time.Now().Add(keyGrace + time.Second)
	return func() bool { return time.Now().After(end) }
}

func (m *member) cfgID() MemberID { return m.Transport.cfg.ID }
func (m *member) String() string  { return m.Transport.String() }

// A peer that does not get the new key in time loses its stream, not just its
// next one.
func TestRemovedKeyEndsStream(t *testing.T) {
	at := new(book)
	ring := testRing(t, 1)
	a := newMember(t, at, Config{ID: "a", Keyring: ring}, nil)
	b := newMember(t, at, Config{ID: "b", Keyring: testRing(t, 1)}, nil)
	b.Send("a", []byte("x"), Data)
	eventually(t, "stream is open", func() bool { return a.total() == 1 })
	if err := ring.Replace([]Key{testKey(t, 2)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream ended", func() bool {
		s := a.Stats()
		return s.Closes.Of(ReasonKeyRemoved) == 1 && s.Streams == 0
	})
	b.Send("a", []byte("x"), Data)
	eventually(t, "the next one is refused", func() bool { d := a.Stats().StreamDrops; return d.Of(ReasonWrongKey) > 0 })
	if a.total() != 1 {
		t.Error("a frame arrived after the key was removed")
	}
}
