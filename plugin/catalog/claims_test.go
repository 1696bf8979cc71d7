package catalog_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

func TestClassClash(t *testing.T) {
	c := catalog.New()
	a := newHost(t, 1, c)
	a.register(start, instance("web", "a"))
	entries := []record.Entry{serviceEntry(1, "web"), instanceEntry(2, instance("web", "c"))}
	for _, x := range []*catalog.Catalog{c, a.c} {
		if _, err := x.Apply(x.Position(), record.Position{Index: 2}, entries); err != nil {
			t.Fatal(err)
		}
	}
	wantView(t, c, "critical wins", "web", "c")
	v := c.Verdicts("web")
	if i := slices.IndexFunc(v, func(v catalog.Verdict) bool { return v.Rule == catalog.RuleClass && v.Instance.ID == "a" }); i < 0 || v[i].Answered {
		t.Errorf("the hidden version is not explained: %+v", v)
	}
	in := instance("web", "d")
	if _, _, err := a.ow.Register(start, &in); !errors.Is(err, catalog.ErrCritical) {
		t.Errorf("Register in a critical service: %v", err)
	}
	if _, err := c.Apply(c.Position(), record.Position{Index: 3}, []record.Entry{
		deleted(3, record.ServiceKey("web")), deleted(3, record.InstanceKey("web", "c")),
	}); err != nil {
		t.Fatal(err)
	}
	wantView(t, c, "no longer critical", "web", "a")
}

func TestClaims(t *testing.T) {
	c := catalog.New()
	a, b := newHost(t, 1, c), newHost(t, 2, c)
	weight := func(w uint16) record.Instance {
		return instance("web", "x", func(in *record.Instance) { in.Weight = w })
	}
	a.register(start, weight(1))
	share := func(from, to *host) {
		for _, head := range from.c.Heads() {
			if w, ok := to.c.Missing(head); ok {
				for _, d := range from.c.Pull(w, 1<<20) {
					if _, err := to.c.Merge(start, &d); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	share(a, b)
	in := weight(2)
	_, _, err := b.ow.Register(start, &in)
	var claimed *catalog.ClaimedError
	if !errors.As(err, &claimed) || claimed.Owner != a.id || claimed.Node != "n1" {
		t.Fatalf("Register of another's instance: %v", err)
	}
	// A transfer hides the old owner's claim; the new one registers, and the
	// old one is obliged to withdraw.
	f := record.Fence{Kind: record.FenceTransfer, Origin: b.id, Service: "web", Instance: "x"}
	for _, x := range []*catalog.Catalog{a.c, b.c, c} {
		if _, err := x.Apply(x.Position(), record.Position{Index: 9}, []record.Entry{{Key: f.Key(), Value: string(f.Append(nil)), Index: 9}}); err != nil {
			t.Fatal(err)
		}
	}
	b.register(start-1_000_000, weight(2)) // its clock is far behind
	v, _ := c.View("web")
	if len(v.Instances) != 1 || v.Instances[0].Weight != 2 {
		t.Errorf("after the transfer: %+v", v.Instances)
	}
	if got := a.ow.Obligations(start); !slices.Equal(got, []record.Key{record.InstanceKey("web", "x")}) {
		t.Errorf("obligations of the old owner: %v", got)
	}
	if got := b.ow.Obligations(start); len(got) != 0 {
		t.Errorf("obligations of the new owner: %v", got)
	}
	for _, v := range c.Verdicts("web") {
		if v.Concurrent {
			t.Errorf("%v wrote with knowledge of the other, yet is called concurrent", v.Origin)
		}
	}
}

// TestConcurrentClaims lets two origins claim one instance without knowing of
// each other: the later time wins everywhere, and the loser withdraws after a
// grace.
func TestConcurrentClaims(t *testing.T) {
	c := catalog.New()
	a, b := newHost(t, 1, c), newHost(t, 2, c)
	a.register(start, instance("web", "x"))
	b.register(start+5, instance("web", "x"))
	n := 0
	for _, v := range c.Verdicts("web") {
		if v.Concurrent {
			n++
		}
		if v.Answered != (v.Origin == b.id) {
			t.Errorf("%v answered: %v", v.Origin, v.Answered)
		}
	}
	if n != 2 {
		t.Errorf("%d versions called concurrent, want 2", n)
	}
	for _, d := range b.c.Pull(catalog.Want{Origin: b.id}, 1<<20) {
		if _, err := a.c.Merge(start, &d); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.ow.Obligations(start); len(got) != 0 {
		t.Errorf("withdraws at once: %v", got)
	}
	if got := a.ow.Obligations(start + 10_000); len(got) != 1 {
		t.Errorf("does not withdraw after the grace: %v", got)
	}
}

// TestSkewedClock keeps a version from a clock far ahead, marks its origin, and
// does not let the local clock follow.
func TestSkewedClock(t *testing.T) {
	var k catalog.Clock
	now := start
	ahead := catalog.HLC(now+3_600_000) << 16
	if k.Observe(now, ahead) || !k.Observe(now, catalog.HLC(now+400)<<16) {
		t.Error("adopts a time an hour ahead, or refuses one 400 ms ahead")
	}
	if next := k.Next(now); next.Millis() != now+400 {
		t.Errorf("next time is %d ms ahead, want 400", next.Millis()-now)
	}
	last := k.Next(now)
	for _, back := range []int64{now, now - 1_000_000, now + 1} {
		next := k.Next(back)
		if next <= last {
			t.Errorf("time went back from %d to %d", last, next)
		}
		last = next
	}
}
