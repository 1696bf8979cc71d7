package transport

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/fluid-sd/fluid/plugin/mesh/memnet"
)

// watcher tells a Rejoiner what memberlist sees.
type watcher struct{ r *Rejoiner }

func (w watcher) addr(n *memberlist.Node) netip.AddrPort {
	a, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(a.Unmap(), n.Port)
}
func (w watcher) NotifyJoin(n *memberlist.Node)   { w.r.Alive(MemberID(n.Name), w.addr(n)) }
func (w watcher) NotifyUpdate(n *memberlist.Node) { w.r.Alive(MemberID(n.Name), w.addr(n)) }
func (w watcher) NotifyLeave(n *memberlist.Node)  { w.r.Dead(MemberID(n.Name), w.addr(n)) }

// fakeMesh is real memberlist in a bubble, over a network in memory.
type fakeMesh struct {
	net   *memnet.Network
	addrs []netip.Addr
	lists []*memberlist.Memberlist
}

// newFakeMesh starts members that all know the first one as seed. Through
// sealed transports, if sealed is set; with a Rejoiner each, if rejoin is.
func newFakeMesh(t *testing.T, n int, sealed, rejoin bool) *fakeMesh {
	t.Helper()
	m := &fakeMesh{net: memnet.New(1)}
	// What memberlist began before it was shut down ends by its timeouts, and
	// fake time ends with the test.
	t.Cleanup(func() { wait(context.Background(), time.Minute) })
	m.net.SetDelay(300*time.Microsecond, 2*time.Millisecond)
	m.net.SetLoss(0.01)
	ctx, cancel := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		loops.Wait()
	})
	seed := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), 7946)
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i + 1)})
		id, at := MemberID(fmt.Sprintf("m%03d", i)), netip.AddrPortFrom(addr, 7946)
		var tr memberlist.NodeAwareTransport
		if sealed {
			tr = newTransport(t, Config{ID: id, Label: "prod", Keyring: testRing(t, 1), Bind: at, Network: m.net.Host(addr)})
		} else {
			mt, err := memnet.NewTransport(m.net.Host(addr), 7946)
			if err != nil {
				t.Fatal(err)
			}
			tr = mt
		}
		var list *memberlist.Memberlist
		r, err := NewRejoiner(RejoinConfig{
			Seeds: []string{seed.String()}, Self: at, JoinDelay: 5 * time.Second,
			Join: func(addr string) error {
				_, err := list.Join([]string{addr})
				return err
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		list = newMemberlist(t, tr, id, func(c *memberlist.Config) {
			c.RequireNodeNames = false
			c.GossipInterval, c.GossipNodes = 100*time.Millisecond, 4
			c.PushPullInterval = 15 * time.Second // a broadcast that missed a member is made up for
			if rejoin {
				c.Events = watcher{r}
			}
		})
		m.addrs, m.lists = append(m.addrs, addr), append(m.lists, list)
		loops.Go(func() {
			if rejoin {
				r.Run(ctx)
			} else {
				r.first(ctx)
			}
		})
	}
	return m
}

// sees reports whether each member of a set counts n members.
func (m *fakeMesh) sees(from, to, n int) bool {
	for _, l := range m.lists[from:to] {
		if l.NumMembers() != n {
			return false
		}
	}
	return true
}

// after waits in fake time until a condition holds.
func after(t *testing.T, limit time.Duration, what string, cond func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > limit {
			t.Fatalf("after %v: not %s", limit, what)
		}
		wait(t.Context(), 100*time.Millisecond)
	}
	return time.Since(start)
}

// A hundred members form through one seed, fall apart for 20 s, and are one
// mesh again within 30 s of the heal, in the middle, at the edge and alone.
func TestRejoinAfterSplit(t *testing.T) {
	n := 100
	if testing.Short() {
		n = 30
	}
	for _, tc := range []struct {
		name   string
		sealed bool
		n, cut int
		split  time.Duration
	}{
		{"half", false, n, n / 2, 20 * time.Second},
		{"half sealed", true, 30, 15, 20 * time.Second},
		{"the seed alone", false, n, 1, 20 * time.Second},
		{"ten minutes", false, 20, 7, 10 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if testing.Short() && tc.split > time.Minute {
				t.Skip("probes for minutes")
			}
			synctest.Test(t, func(t *testing.T) {
				m := newFakeMesh(t, tc.n, tc.sealed, true)
				formed := after(t, 2*time.Minute, "all members know each other", func() bool { return m.sees(0, tc.n, tc.n) })
				m.net.Partition(m.addrs[:tc.cut], m.addrs[tc.cut:])
				wait(t.Context(), tc.split)
				if m.sees(0, tc.n, tc.n) {
					t.Fatal("the split was not noticed")
				}
				m.net.Heal()
				healed := after(t, 30*time.Second, "one mesh again", func() bool { return m.sees(0, tc.n, tc.n) })
				t.Logf("%d members formed in %v, were one again %v after the heal", tc.n, formed, healed)
			})
		})
	}
}

// This is why there is a Rejoiner.
func TestMemberlistAloneStaysSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20
		m := newFakeMesh(t, n, false, false)
		after(t, 2*time.Minute, "all members know each other", func() bool { return m.sees(0, n, n) })
		m.net.Partition(m.addrs[:n/2], m.addrs[n/2:])
		after(t, 2*time.Minute, "each half counts itself", func() bool { return m.sees(0, n, n/2) })
		// memberlist gossips to the dead for 30 s.
		wait(t.Context(), 30*time.Second)
		m.net.Heal()
		wait(t.Context(), 5*time.Minute)
		if !m.sees(0, n, n/2) {
			t.Error("memberlist healed a split by itself: is the Rejoiner still needed?")
		}
	})
}

func TestRejoinerTargets(t *testing.T) {
	addr := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 7946)
	}
	const rounds = 4000
	for _, tc := range []struct {
		name        string
		alive, dead int
		seeds       []string
		rate        float64 // rounds in which anything is tried
		each        int     // at most so many at once
	}{
		{"all well", 99, 0, []string{"10.0.0.1:7946"}, 0, 0},
		{"small side", 9, 90, nil, 1, 2},
		{"large side", 89, 10, nil, 0.11, 2},
		{"half of a thousand", 499, 500, nil, 0.064, 2},
		{"alone, seed is gone", 0, 0, []string{"192.0.2.1:7946"}, 1, 1},
		{"hundred, seed is gone", 99, 0, []string{"192.0.2.1:7946"}, 0.05, 1},
		{"seed by name", 0, 0, []string{"seed.example:7946"}, 1, 1},
		{"seed by name is alive", 3, 0, []string{"alive.example:7946"}, 0, 0},
		{"seed is this member", 0, 0, []string{"10.9.9.9:7946"}, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := NewRejoiner(RejoinConfig{
				Seeds: tc.seeds, Self: netip.MustParseAddrPort("10.9.9.9:7946"), Join: func(string) error { return nil },
				Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
					switch host {
					case "seed.example":
						return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
					case "alive.example":
						return []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.1")}, nil
					}
					return nil, errors.New("no such host")
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range tc.alive {
				r.Alive(MemberID(fmt.Sprint("a", i)), addr(i+1))
			}
			for i := range tc.dead {
				r.Dead(MemberID(fmt.Sprint("d", i)), addr(i+1000))
			}
			tried := 0
			for range rounds {
				targets := r.targets(t.Context())
				if len(targets) > tc.each {
					t.Fatalf("tries %v at once, at most %d are allowed", targets, tc.each)
				}
				if len(targets) > 0 {
					tried++
				}
			}
			if got := float64(tried) / rounds; got < tc.rate*0.75 || got > tc.rate*1.25+0.001 {
				t.Errorf("tries in %.3f of the rounds, want about %.3f", got, tc.rate)
			}
		})
	}
}

func TestRejoinerForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := NewRejoiner(RejoinConfig{Join: func(string) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		at := netip.MustParseAddrPort("10.0.0.1:7946")
		r.Dead("left", at)
		r.Left("left")
		r.Dead("back", at)
		r.Alive("back", at)
		if got := r.targets(t.Context()); len(got) != 0 {
			t.Errorf("tries %v", got)
		}
		r.Left("back")
		r.Dead("dead", at)
		wait(t.Context(), 71*time.Hour)
		if got := r.targets(t.Context()); !slices.Equal(got, []string{at.String()}) {
			t.Errorf("tries %v after 71 h", got)
		}
		wait(t.Context(), 2*time.Hour)
		if got := r.targets(t.Context()); len(got) != 0 {
			t.Errorf("tries %v after 73 h", got)
		}
		for i := range maxDead + 10 {
			r.Dead(MemberID(fmt.Sprint(i)), at)
		}
		if len(r.dead) > maxDead {
			t.Errorf("%d dead members are remembered, at most %d are allowed", len(r.dead), maxDead)
		}
	})
}

// Joins are spread over the delay, use at most three seeds, and go on until
// one answers.
func TestFirstJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seeds []string
		for i := range 10 {
			seeds = append(seeds, fmt.Sprintf("10.0.0.%d:7946", i+1))
		}
		start := time.Now()
		var mu sync.Mutex
		tries := map[time.Duration]int{}
		r, err := NewRejoiner(RejoinConfig{
			Seeds: seeds, JoinDelay: 30 * time.Second,
			Join: func(string) error {
				mu.Lock()
				defer mu.Unlock()
				tries[time.Since(start)]++
				if time.Since(start) < 3*time.Minute {
					return errors.New("nobody there")
				}
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if !r.first(ctx) {
			t.Fatal("did not join")
		}
		if took := time.Since(start); took < 3*time.Minute || took > 4*time.Minute {
			t.Errorf("joined after %v", took)
		}
		if len(tries) < 10 || len(tries) > 40 {
			t.Errorf("%d attempts in 3 minutes", len(tries))
		}
		for at, n := range tries {
			if n != joinSeeds {
				t.Errorf("%d seeds asked at %v, want %d", n, at, joinSeeds)
			}
		}
	})
}

func TestBadSeeds(t *testing.T) {
	for _, bad := range []string{"", "10.0.0.1", "10.0.0.1:", ":7946", "10.0.0.1:0", "10.0.0.1:99999", "10.0.0.1:http"} {
		_, err := NewRejoiner(RejoinConfig{Seeds: []string{bad}, Join: func(string) error { return nil }})
		if err == nil {
			t.Errorf("seed %q is accepted", bad)
		}
	}
}
