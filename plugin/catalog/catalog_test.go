package catalog_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

func instance(service, id string, edit ...func(*record.Instance)) record.Instance {
	in := record.Instance{Service: service, ID: id, Weight: 1, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.9")}}
	for _, e := range edit {
		e(&in)
	}
	in.Normalize()
	return in
}

func instanceEntry(index uint64, in record.Instance) record.Entry {
	return record.Entry{Key: record.InstanceKey(in.Service, in.ID), Value: string(in.Append(nil)), Index: index}
}

func serviceEntry(index uint64, name string) record.Entry {
	s := record.Service{Name: name, Class: record.ClassCritical}
	return record.Entry{Key: record.ServiceKey(name), Value: string(s.Append(nil)), Index: index}
}

func overlayEntry(index uint64, o record.Overlay) record.Entry {
	return record.Entry{Key: record.OverlayKey(o.ID), Value: string(o.Append(nil)), Index: index}
}

func deleted(index uint64, k record.Key) record.Entry {
	return record.Entry{Key: k, Index: index, Deleted: true}
}

func at(index uint64) record.Position { return record.Position{Generation: 1, Index: index} }

func ids(s *catalog.Service) []string {
	var out []string
	for _, in := range s.Instances {
		out = append(out, in.ID)
	}
	return out
}

func TestPositions(t *testing.T) {
	c := catalog.New()
	if _, err := c.Replace(at(5), slices.Values([]record.Entry{serviceEntry(5, "web")})); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name      string
		prev, pos record.Position
		want      error
	}{
		{"gap", at(6), at(7), catalog.ErrGap},
		{"overlap", at(4), at(7), catalog.ErrGap},
		{"other generation", at(5), record.Position{Generation: 2, Index: 1}, catalog.ErrGap},
		{"behind", at(3), at(4), catalog.ErrBehind},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := c.Apply(tc.prev, tc.pos, []record.Entry{serviceEntry(7, "other")})
			if !errors.Is(err, tc.want) {
				t.Errorf("Apply = %v, want %v", err, tc.want)
			}
			if c.Position() != at(5) {
				t.Errorf("position moved to %v", c.Position())
			}
		})
	}
	if _, err := c.Replace(at(4), slices.Values([]record.Entry{})); !errors.Is(err, catalog.ErrBehind) {
		t.Errorf("Replace behind = %v, want ErrBehind", err)
	}
	ch, err := c.Replace(record.Position{Generation: 2, Index: 1}, slices.Values([]record.Entry{}))
	if err != nil || !ch.All {
		t.Errorf("Replace with a new generation = %+v, %v", ch, err)
	}
	if _, ok := c.View("web"); ok {
		t.Error("service of the old generation still exists")
	}
}

func TestOverlays(t *testing.T) {
	base := []record.Entry{
		serviceEntry(1, "web"),
		instanceEntry(2, instance("web", "a", func(in *record.Instance) { in.Node = "n1" })),
		instanceEntry(3, instance("web", "b", func(in *record.Instance) { in.Node = "n2" })),
	}
	weight := func(id string, w uint16, o record.Overlay) record.Overlay {
		o.ID, o.Kind, o.Weight = id, record.OverlayWeight, w
		return o
	}
	for _, tc := range []struct {
		name     string
		overlays []record.Overlay
		want     []string
		weights  []uint16
	}{
		{name: "none", want: []string{"a", "b"}, weights: []uint16{1, 1}},
		{name: "drain an instance", overlays: []record.Overlay{{ID: "o", Kind: record.OverlayDrain, Service: "web", Instance: "a"}}, want: []string{"b"}, weights: []uint16{1}},
		{name: "deny a node", overlays: []record.Overlay{{ID: "o", Kind: record.OverlayDeny, Node: "n2"}}, want: []string{"a"}, weights: []uint16{1}},
		{name: "drain the service", overlays: []record.Overlay{{ID: "o", Kind: record.OverlayDrain, Service: "web"}}},
		{name: "allow does not lift a deny", overlays: []record.Overlay{
			{ID: "o", Kind: record.OverlayDeny, Service: "web"}, {ID: "p", Kind: record.OverlayAllow, Service: "web"},
		}},
		{name: "closest weight", overlays: []record.Overlay{
			weight("o1", 10, record.Overlay{Service: "web", Instance: "a"}),
			weight("o2", 20, record.Overlay{Node: "n1"}), weight("o3", 30, record.Overlay{Service: "web"}),
		}, want: []string{"a", "b"}, weights: []uint16{10, 30}},
		{name: "latest weight", overlays: []record.Overlay{
			weight("o1", 10, record.Overlay{Service: "web"}), weight("o2", 0, record.Overlay{Service: "web"}),
		}, want: []string{"a", "b"}, weights: []uint16{0, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := catalog.New()
			if _, err := c.Replace(at(3), slices.Values(base)); err != nil {
				t.Fatal(err)
			}
			pos := at(3)
			for _, o := range tc.overlays {
				next := at(pos.Index + 1)
				ch, err := c.Apply(pos, next, []record.Entry{overlayEntry(next.Index, o)})
				if err != nil || !slices.Contains(ch.Services, "web") {
					t.Fatalf("Apply = %+v, %v; want web changed", ch, err)
				}
				pos = next
			}
			v, ok := c.View("web")
			if !ok || !slices.Equal(ids(v), tc.want) {
				t.Fatalf("answered %v, want %v", ids(v), tc.want)
			}
			for i, in := range v.Instances {
				if in.Weight != tc.weights[i] {
					t.Errorf("%s has weight %d, want %d", in.ID, in.Weight, tc.weights[i])
				}
			}
			if n := len(c.Verdicts("web")); n != 2 {
				t.Errorf("%d verdicts, want 2", n)
			}
			for _, o := range tc.overlays { // lifted, everything is as before
				next := at(pos.Index + 1)
				if _, err := c.Apply(pos, next, []record.Entry{deleted(next.Index, record.OverlayKey(o.ID))}); err != nil {
					t.Fatal(err)
				}
				pos = next
			}
			if v, _ := c.View("web"); !slices.Equal(ids(v), []string{"a", "b"}) || v.Instances[0].Weight != 1 {
				t.Errorf("after lifting: %+v", v.Instances)
			}
		})
	}
}

func TestQuarantine(t *testing.T) {
	good := instanceEntry(2, instance("web", "a"))
	c := catalog.New()
	entries := []record.Entry{
		good,
		{Key: record.InstanceKey("web", "b"), Value: "\xff", Index: 3},
		{Key: record.InstanceKey("web", "c"), Value: good.Value, Index: 4}, // another key's record
		{Key: "z/later", Value: "kind of a newer version", Index: 5},
	}
	if _, err := c.Replace(at(5), slices.Values(entries)); err != nil {
		t.Fatal(err)
	}
	if v, _ := c.View("web"); !slices.Equal(ids(v), []string{"a"}) {
		t.Errorf("answered %v, want [a]", ids(v))
	}
	if c.Quarantined() != 2 || c.Len() != 4 {
		t.Errorf("quarantined %d of %d, want 2 of 4", c.Quarantined(), c.Len())
	}
	var want uint64
	for _, e := range entries {
		want += catalog.EntryHash(e)
	}
	if c.Hash() != want {
		t.Errorf("hash %x, want %x", c.Hash(), want)
	}
	fixed := instanceEntry(6, instance("web", "b"))
	if _, err := c.Apply(at(5), at(6), []record.Entry{fixed}); err != nil || c.Quarantined() != 1 {
		t.Errorf("after repair: %v, %d quarantined", err, c.Quarantined())
	}
	if v, _ := c.View("web"); !slices.Equal(ids(v), []string{"a", "b"}) {
		t.Errorf("answered %v, want [a b]", ids(v))
	}
}

func TestExistence(t *testing.T) {
	c := catalog.New()
	steps := []struct {
		entry record.Entry
		want  bool
	}{
		{overlayEntry(1, record.Overlay{ID: "o", Kind: record.OverlayDrain, Service: "web"}), false},
		{serviceEntry(2, "web"), true},
		{instanceEntry(3, instance("web", "a")), true},
		{deleted(4, record.InstanceKey("web", "a")), true},
		{deleted(5, record.ServiceKey("web")), false},
	}
	for _, s := range steps {
		if _, err := c.Apply(c.Position(), record.Position{Index: s.entry.Index}, []record.Entry{s.entry}); err != nil {
			t.Fatal(err)
		}
		if _, got := c.View("web"); got != s.want {
			t.Errorf("after %v: exists %v, want %v", s.entry.Key, got, s.want)
		}
		if got := slices.Contains(slices.Collect(c.Services()), "web"); got != s.want {
			t.Errorf("after %v: listed %v, want %v", s.entry.Key, got, s.want)
		}
	}
}

// TestAgainstMap drives a catalog and a plain map with the same deltas and
// compares entries, hash, view and resume.
func TestAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := catalog.New()
		model := map[record.Key]record.Entry{}
		history := []map[record.Key]record.Entry{{}}
		for index := uint64(1); index <= 40; index++ {
			e := randomEntry(t, index)
			if old, ok := model[e.Key]; e.Deleted {
				delete(model, e.Key)
			} else if !ok || old.Index < e.Index {
				model[e.Key] = e
			}
			want := c.HashAfter([]record.Entry{e})
			prev := c.Position()
			if _, err := c.Apply(prev, record.Position{Index: index}, []record.Entry{e}); err != nil {
				t.Fatal(err)
			}
			if c.Hash() != want {
				t.Fatalf("HashAfter %x, hash %x", want, c.Hash())
			}
			history = append(history, maps.Clone(model))
		}
		got := map[record.Key]record.Entry{}
		var hash uint64
		for e := range c.Entries() {
			got[e.Key] = e
			hash += catalog.EntryHash(e)
		}
		if !maps.Equal(got, model) || hash != c.Hash() || c.Len() != len(model) {
			t.Fatalf("entries %v\nwant %v", got, model)
		}
		from := rapid.Uint64Range(0, 40).Draw(t, "resume")
		since, ok := c.Since(record.Position{Index: from})
		if !ok {
			t.Fatal("cannot resume")
		}
		old := catalog.New()
		if _, err := old.Replace(record.Position{Index: from}, maps.Values(history[from])); err != nil {
			t.Fatal(err)
		}
		if _, err := old.Apply(old.Position(), c.Position(), since); err != nil || old.Hash() != c.Hash() {
			t.Fatalf("resumed hash %x, want %x (%v)", old.Hash(), c.Hash(), err)
		}
		for _, name := range []string{"web", "db"} {
			a, aok := c.View(name)
			b, bok := old.View(name)
			if aok != bok || aok && fmt.Sprint(a.Instances) != fmt.Sprint(b.Instances) {
				t.Fatalf("views of %s differ:\n%v\n%v", name, a, b)
			}
		}
	})
}

func randomEntry(t *rapid.T, index uint64) record.Entry {
	name := rapid.SampledFrom([]string{"web", "db"}).Draw(t, "service")
	id := rapid.SampledFrom([]string{"a", "b", "10.0.0.9"}).Draw(t, "id")
	var e record.Entry
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0, 1:
		e = instanceEntry(index, instance(name, id, func(in *record.Instance) {
			in.Node = rapid.SampledFrom([]string{"", "n1", "n2"}).Draw(t, "node")
			in.Status = record.Status(rapid.IntRange(0, 4).Draw(t, "status"))
		}))
	case 2:
		e = serviceEntry(index, name)
	case 3:
		o := record.Overlay{ID: "o" + id[:1], Kind: record.OverlayDrain, Service: name, Instance: id}
		if rapid.Bool().Draw(t, "node overlay") {
			o.Service, o.Instance, o.Node = "", "", "n1"
		}
		e = overlayEntry(index, o)
	case 4:
		e = record.Entry{Key: record.InstanceKey(name, id), Value: "broken", Index: index}
	}
	if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
		e.Value, e.Deleted = "", true
	}
	return e
}

// TestHeap holds the memory of reference instances (A record, port, two tags)
// to its target.
func TestHeap(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a quiet heap")
	}
	const n, perService = 200_000, 20
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := catalog.New()
	if _, err := c.Replace(at(n), referenceEntries(n, perService)); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.0f B of live heap per committed instance", per)
	if per > 250 {
		t.Errorf("%.0f B per instance, want at most 250", per)
	}
	runtime.KeepAlive(c)
}

func referenceEntries(n, perService int) func(func(record.Entry) bool) {
	return func(yield func(record.Entry) bool) {
		for i := range n {
			addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			in := instance(fmt.Sprintf("checkout-%d", i/perService), "", func(in *record.Instance) {
				in.Addrs, in.Port, in.Tags = []netip.Addr{addr}, 8080, []string{"v1", "green"}
				in.Registered = 1_790_000_000_000
			})
			if !yield(instanceEntry(uint64(i), in)) {
				return
			}
		}
	}
}
