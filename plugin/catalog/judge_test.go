package catalog_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// host is an agent's side: its origin, and the reader that judges it.
type host struct {
	t      *testing.T
	id     record.OriginID
	c      *catalog.Catalog
	ow     *catalog.Owner
	reader *catalog.Catalog
}

const minute = int64(60_000)

var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

func newHost(t *testing.T, n byte, reader *catalog.Catalog) *host {
	t.Helper()
	h := &host{t: t, id: record.OriginID{n}, c: catalog.New(), reader: reader}
	ow, _, err := h.c.Own(start, h.id, 1, uint64(n), nil)
	if err != nil {
		t.Fatal(err)
	}
	h.ow = ow
	name := fmt.Sprintf("n%d", n)
	it, _ := ow.Describe(start, &record.Node{ID: "agent-" + name, Name: name, Created: int64(n), Members: []string{"dns-" + name}})
	h.commit(start, it)
	h.members(start, catalog.MemberAlive, catalog.MemberAlive)
	return h
}

// commit publishes an item and gives it to the reader.
func (h *host) commit(now int64, it catalog.Item) {
	h.t.Helper()
	h.ow.Commit(now, it)
	head, _ := h.c.Head(h.id)
	if w, ok := h.reader.Missing(head); ok {
		for _, d := range h.c.Pull(w, 1<<20) {
			if _, err := h.reader.Merge(now, &d); err != nil {
				h.t.Fatal(err)
			}
		}
	}
}

func (h *host) register(now int64, in record.Instance) {
	h.t.Helper()
	it, _, err := h.ow.Register(now, &in)
	if err != nil {
		h.t.Fatal(err)
	}
	h.commit(now, it)
}

func (h *host) status(now int64, service, id string, s record.Status) {
	h.t.Helper()
	in := instance(service, id, func(in *record.Instance) { in.Status = s })
	it, _, err := h.ow.Update(now, &in)
	if err != nil {
		h.t.Fatal(err)
	}
	h.commit(now, it)
}

// members tells the reader what became of the agent and its DNS server.
func (h *host) members(now int64, agent, dns catalog.MemberStatus) {
	n := fmt.Sprintf("n%d", h.id[0])
	h.reader.ObserveMember(now, "agent-"+n, agent)
	h.reader.ObserveMember(now, "dns-"+n, dns)
}

func wantView(t *testing.T, c *catalog.Catalog, when, service string, want ...string) {
	t.Helper()
	v, ok := c.View(service)
	if !ok {
		t.Errorf("%s: %s does not exist", when, service)
		return
	}
	if got := ids(v); !slices.Equal(got, want) {
		t.Errorf("%s: answered %v, want %v", when, got, want)
	}
}

func TestLiveness(t *testing.T) {
	const alive, dead, left = catalog.MemberAlive, catalog.MemberDead, catalog.MemberLeft
	for _, tc := range []struct {
		name       string
		agent, dns catalog.MemberStatus
		after      int64 // milliseconds since the change
		answered   bool
		state      catalog.OriginState
	}{
		{"all alive", alive, alive, 100 * minute, true, catalog.Attended},
		{"within the hold-down", dead, dead, 29_000, true, catalog.Attended},
		{"after the hold-down", dead, dead, 30_000, false, catalog.Dead},
		{"left", left, left, 0, false, catalog.Dead},
		{"agent dead, DNS alive", dead, alive, 9 * minute, true, catalog.Attended},
		{"unattended", dead, alive, 10 * minute, false, catalog.Unattended},
		{"DNS dead, agent alive", alive, dead, 100 * minute, true, catalog.Attended},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := catalog.New()
			a, b := newHost(t, 1, c), newHost(t, 2, c)
			for i := range 3 {
				b.register(start, instance("web", fmt.Sprint("b", i)))
			}
			a.register(start, instance("web", "a"))
			a.members(start, tc.agent, tc.dns)
			c.Advance(start + tc.after)
			want := []string{"b0", "b1", "b2"}
			if tc.answered {
				want = append([]string{"a"}, want...)
			}
			wantView(t, c, tc.name, "web", want...)
			if got, _ := c.OriginState(a.id); got != tc.state {
				t.Errorf("origin is %v, want %v", got, tc.state)
			}
			if _, ok := c.Node("n1"); ok == (tc.state == catalog.Dead) {
				t.Errorf("node n1 found: %v", ok)
			}
			a.members(start+tc.after, alive, alive)
			wantView(t, c, "after the return", "web", "a", "b0", "b1", "b2")
		})
	}
}

// TestUnknownMembersAreDead covers an origin whose host was gone before this
// member started: nobody will ever report its death.
func TestUnknownMembersAreDead(t *testing.T) {
	c := catalog.New()
	a := newHost(t, 1, c)
	a.register(start, instance("web", "a"))
	late := catalog.New()
	head, _ := a.c.Head(a.id)
	w, _ := late.Missing(head)
	for _, d := range a.c.Pull(w, 1<<20) {
		if _, err := late.Merge(start, &d); err != nil {
			t.Fatal(err)
		}
	}
	late.Advance(start + 29_000)
	wantView(t, late, "within the hold-down", "web", "a")
	late.Advance(start + 30_000)
	wantView(t, late, "after it", "web")
}

func TestUnattendedAnswersAlone(t *testing.T) {
	c := catalog.New()
	a := newHost(t, 1, c)
	a.register(start, instance("web", "a"))
	a.members(start, catalog.MemberDead, catalog.MemberAlive)
	c.Advance(start + 11*minute)
	wantView(t, c, "nobody else", "web", "a")
	if v, _ := c.View("web"); v.Note == "" || !v.Instances[0].Stale {
		t.Errorf("an unattended answer is not marked: %+v", v)
	}
}

// TestCommittedOnDeadNode withholds a committed instance with its node, and
// never one without a node.
func TestCommittedOnDeadNode(t *testing.T) {
	c := catalog.New()
	a := newHost(t, 1, c)
	_, err := c.Replace(at(3), slices.Values([]record.Entry{
		instanceEntry(2, instance("shop", "here", func(in *record.Instance) { in.Node = "n1" })),
		instanceEntry(3, instance("shop", "external")),
	}))
	if err != nil {
		t.Fatal(err)
	}
	a.members(start, catalog.MemberDead, catalog.MemberDead)
	c.Advance(start + minute)
	wantView(t, c, "node dead", "shop", "external")
}

// TestReport binds a status to the instance as it was committed, and lets it
// only subtract.
func TestReport(t *testing.T) {
	c := catalog.New()
	a := newHost(t, 1, c)
	on := func(s record.Status) record.Instance {
		return instance("shop", "x", func(in *record.Instance) { in.Node, in.Status = "n1", s })
	}
	report := func(index uint64, s record.Status) {
		it, _ := a.ow.Report(start, &record.Report{Service: "shop", ID: "x", Position: at(index), Status: s})
		a.commit(start, it)
	}
	if _, err := c.Replace(at(2), slices.Values([]record.Entry{instanceEntry(2, on(record.Passing))})); err != nil {
		t.Fatal(err)
	}
	report(2, record.Critical)
	wantView(t, c, "check fails", "shop")
	report(2, record.Passing)
	wantView(t, c, "check passes", "shop", "x")
	report(2, record.Critical)
	if _, err := c.Apply(at(2), at(3), []record.Entry{instanceEntry(3, on(record.Passing))}); err != nil {
		t.Fatal(err)
	}
	wantView(t, c, "registered again", "shop", "x")
	if _, err := c.Apply(at(3), at(4), []record.Entry{instanceEntry(4, on(record.Maintenance))}); err != nil {
		t.Fatal(err)
	}
	report(4, record.Passing)
	wantView(t, c, "a report does not add", "shop")
}

func TestGuard(t *testing.T) {
	setup := func(t *testing.T, n int) (*catalog.Catalog, *host) {
		c := catalog.New()
		a := newHost(t, 1, c)
		for i := range n {
			a.register(start, instance("web", fmt.Sprint("i", i)))
		}
		return c, a
	}
	fail := func(a *host, now int64, n ...int) {
		for _, i := range n {
			a.status(now, "web", fmt.Sprint("i", i), record.Critical)
		}
	}
	t.Run("a minority is withheld", func(t *testing.T) {
		c, a := setup(t, 4)
		fail(a, start, 0, 1)
		wantView(t, c, "half failed", "web", "i2", "i3")
	})
	t.Run("a majority is kept", func(t *testing.T) {
		c, a := setup(t, 4)
		fail(a, start, 0, 1, 2)
		wantView(t, c, "three of four failed", "web", "i0", "i1", "i2", "i3")
		v, _ := c.View("web")
		if !v.Instances[0].Stale || v.Instances[3].Stale || v.Note == "" {
			t.Errorf("kept instances are not marked: %+v", v)
		}
		if got := c.Guarded(); !slices.Equal(got, []string{"web"}) {
			t.Errorf("guarded %v", got)
		}
	})
	t.Run("slowly is not at once", func(t *testing.T) {
		c, a := setup(t, 4)
		for i := range 4 {
			fail(a, start+int64(i)*2*minute, i)
		}
		c.Advance(start + 8*minute)
		wantView(t, c, "one by one", "web")
	})
	t.Run("two are too few", func(t *testing.T) {
		c, a := setup(t, 2)
		fail(a, start, 0, 1)
		wantView(t, c, "both failed", "web")
	})
	t.Run("recovery ends it", func(t *testing.T) {
		c, a := setup(t, 3)
		fail(a, start, 0, 1, 2)
		a.status(start+1000, "web", "i0", record.Passing)
		if v, _ := c.View("web"); v.Instances[0].Stale {
			t.Error("a recovered instance is still marked")
		}
	})
	t.Run("withdrawal ends it at once", func(t *testing.T) {
		c, a := setup(t, 3)
		fail(a, start, 0, 1, 2)
		it, err := a.ow.Withdraw(start, record.InstanceKey("web", "i0"))
		if err != nil {
			t.Fatal(err)
		}
		a.commit(start, it)
		wantView(t, c, "one withdrawn", "web", "i1", "i2")
		a.status(start, "web", "i1", record.Maintenance)
		wantView(t, c, "one in maintenance", "web", "i2")
	})
	t.Run("allow and deny end it", func(t *testing.T) {
		c, a := setup(t, 3)
		fail(a, start, 0, 1, 2)
		if _, err := c.Apply(c.Position(), record.Position{Index: 1}, []record.Entry{
			overlayEntry(1, record.Overlay{ID: "o1", Kind: record.OverlayAllow, Service: "web", Instance: "i0"}),
			overlayEntry(1, record.Overlay{ID: "o2", Kind: record.OverlayDeny, Service: "web", Instance: "i1"}),
		}); err != nil {
			t.Fatal(err)
		}
		wantView(t, c, "one allowed to go, one denied", "web", "i2")
	})
	t.Run("it ends by itself", func(t *testing.T) {
		c, a := setup(t, 3)
		fail(a, start, 0, 1, 2)
		c.Advance(start + 14*minute)
		wantView(t, c, "14 minutes", "web", "i0", "i1", "i2")
		c.Advance(start + 16*minute)
		wantView(t, c, "16 minutes", "web")
	})
	t.Run("hosts die", func(t *testing.T) {
		c, a := setup(t, 3)
		a.members(start, catalog.MemberDead, catalog.MemberDead)
		c.Advance(start + 31_000)
		wantView(t, c, "the only host died", "web", "i0", "i1", "i2")
	})
}

func TestFences(t *testing.T) {
	fence := func(index uint64, f record.Fence) record.Entry {
		return record.Entry{Key: f.Key(), Value: string(f.Append(nil)), Index: index}
	}
	one, two := record.OriginID{1}, record.OriginID{2}
	for _, tc := range []struct {
		name    string
		fence   record.Fence
		want    []string // answered after the fence
		renewed []string // answered after the owner registers again
	}{
		{"kill", record.Fence{Kind: record.FenceKill, Origin: one, Service: "web", Instance: "a"}, []string{"b"}, []string{"a", "b"}},
		{"kill of another origin", record.Fence{Kind: record.FenceKill, Origin: two, Service: "web", Instance: "a"}, []string{"a", "b"}, []string{"a", "b"}},
		{"class", record.Fence{Kind: record.FenceClass, Service: "web"}, nil, []string{"a"}},
		{"transfer", record.Fence{Kind: record.FenceTransfer, Origin: two, Service: "web", Instance: "a"}, []string{"b"}, []string{"a", "b"}},
		{"reap", record.Fence{Kind: record.FenceReap, Origin: one, Epoch: 1}, nil, nil},
		{"reap of an older epoch", record.Fence{Kind: record.FenceReap, Origin: one, Epoch: 0}, []string{"a", "b"}, []string{"a", "b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := catalog.New()
			a := newHost(t, 1, c)
			a.register(start, instance("web", "a"))
			a.register(start, instance("web", "b"))
			for _, x := range []*catalog.Catalog{c, a.c} {
				if _, err := x.Apply(x.Position(), record.Position{Index: 7}, []record.Entry{fence(7, tc.fence)}); err != nil {
					t.Fatal(err)
				}
			}
			if tc.fence.Kind == record.FenceReap && tc.want == nil {
				if _, ok := c.View("web"); ok {
					t.Error("a reaped origin's service exists")
				}
				head, _ := a.c.Head(one)
				if _, ok := c.Missing(head); ok {
					t.Error("a reaped origin is asked for")
				}
				return
			}
			wantView(t, c, "after the fence", "web", tc.want...)
			a.status(start, "web", "a", record.Warning) // no explicit registration
			wantView(t, c, "after a change of status", "web", tc.want...)
			a.register(start, instance("web", "a"))
			wantView(t, c, "after a new registration", "web", tc.renewed...)
		})
	}
}
