package catalog_test

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

func drawDelta(t *rapid.T) catalog.Delta {
	num := rapid.Uint64Range(0, 1<<40)
	d := catalog.Delta{
		Origin: record.OriginID{rapid.Byte().Draw(t, "origin"), 1}, Epoch: num.Draw(t, "epoch") + 1,
		Nonce: rapid.Uint64().Draw(t, "nonce"), Base: num.Draw(t, "base"), From: num.Draw(t, "from"),
	}
	d.To = d.From
	for range rapid.IntRange(1, 5).Draw(t, "items") {
		d.To += rapid.Uint64Range(1, 100).Draw(t, "step")
		it := catalog.Item{
			Key: record.InstanceKey("web", rapid.StringMatching("[a-z]{1,9}").Draw(t, "id")), Seq: d.To,
			HLC: catalog.HLC(num.Draw(t, "hlc")), Born: record.Position{Generation: num.Draw(t, "gen"), Index: num.Draw(t, "index")},
			Deleted: rapid.Bool().Draw(t, "deleted"),
		}
		if !it.Deleted {
			it.Value = rapid.StringN(0, 50, 100).Draw(t, "value")
			it.Vector = strings.Repeat("v", 24*rapid.IntRange(0, 8).Draw(t, "vector"))
		}
		d.Items = append(d.Items, it)
	}
	if rapid.Bool().Draw(t, "reset") {
		d.ResetTo, d.Floor = d.To+3, d.From
	}
	return d
}

func TestDeltaRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawDelta(t)
		b := want.Append(nil)
		if len(b) > want.Size() {
			t.Fatalf("%d bytes, Size says at most %d", len(b), want.Size())
		}
		got, err := catalog.DecodeDelta(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
		}
		for i := range b { // every truncation is refused
			if _, err := catalog.DecodeDelta(b[:i]); !errors.Is(err, catalog.ErrDelta) {
				t.Fatalf("first %d bytes: %v", i, err)
			}
		}
	})
}

func TestListsRoundTrip(t *testing.T) {
	heads := []catalog.Head{{Origin: record.OriginID{1}, Epoch: 2, Nonce: 3, Watermark: 4}, {Origin: record.OriginID{5}}}
	if got, err := catalog.DecodeHeads(catalog.AppendHeads(nil, heads)); err != nil || !slices.Equal(got, heads) {
		t.Errorf("heads: %v, %v", got, err)
	}
	wants := []catalog.Want{{Origin: record.OriginID{1}, Epoch: 2, Nonce: 3, From: 4}}
	if got, err := catalog.DecodeWants(catalog.AppendWants(nil, wants)); err != nil || !slices.Equal(got, wants) {
		t.Errorf("wants: %v, %v", got, err)
	}
	b := catalog.Batch{
		Prev: at(3), Seal: catalog.Seal{Position: at(5), Hash: 7, PublicKey: "key", Signature: "sig"}, Full: true, Part: 1, Parts: 2,
		Entries: []record.Entry{{Key: "i/web/a", Value: "x", Index: 4}, {Key: "i/web/b", Index: 5, Deleted: true}},
	}
	enc := b.Append(nil)
	if got, err := catalog.DecodeBatch(enc); err != nil || !reflect.DeepEqual(got, b) {
		t.Errorf("batch: %+v, %v", got, err)
	}
	for i := range enc {
		if _, err := catalog.DecodeBatch(enc[:i]); !errors.Is(err, catalog.ErrDelta) {
			t.Errorf("batch of %d bytes: %v", i, err)
		}
	}
	// The magic words must not change: members of different versions compare them.
	if got := fmt.Sprintf("%x", b.Seal.Message()); got != "666c75696420636f6d6d69747465642073746174650a010507" {
		t.Errorf("sealed message is %s", got)
	}
}

func FuzzDecode(f *testing.F) {
	d := catalog.Delta{Origin: record.OriginID{1}, Epoch: 1, To: 2, Items: []catalog.Item{{Key: "i/web/a", Seq: 1, Value: "x"}}}
	f.Add(d.Append(nil))
	f.Add(catalog.AppendHeads(nil, []catalog.Head{{Epoch: 1}}))
	f.Add((&catalog.Batch{Entries: []record.Entry{{Key: "k"}}}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := catalog.DecodeDelta(b); err == nil {
			again, err := catalog.DecodeDelta(d.Append(nil))
			if err != nil || !reflect.DeepEqual(d, again) {
				t.Errorf("round trip of %+v: %+v, %v", d, again, err)
			}
			c := catalog.New()
			_, _ = c.Merge(0, &d)
			_, _ = c.Merge(0, &d)
			for name := range c.Services() {
				c.View(name)
				c.Verdicts(name)
			}
		}
		_, _ = catalog.DecodeHeads(b)
		_, _ = catalog.DecodeWants(b)
		_, _ = catalog.DecodeBatch(b)
	})
}

// TestHostile sends what a member with the gossip key, but without honesty,
// could send: everything must end at a limit.
func TestHostile(t *testing.T) {
	item := func(seq uint64, id string, size int) catalog.Item {
		in := instance("web", id, func(in *record.Instance) {
			in.Meta = []record.Pair{{Key: "k", Value: strings.Repeat("x", size)}}
		})
		return catalog.Item{Key: record.InstanceKey("web", id), Seq: seq, Value: string(in.Append(nil))}
	}
	delta := func(origin byte, from uint64, items ...catalog.Item) catalog.Delta {
		return catalog.Delta{Origin: record.OriginID{origin}, Epoch: 1, From: from, To: items[len(items)-1].Seq, Items: items}
	}
	t.Run("records of one origin", func(t *testing.T) {
		c := catalog.New()
		var err error
		for seq := uint64(1); err == nil; seq++ {
			d := delta(1, seq-1, item(seq, fmt.Sprint("i", seq), 0))
			if _, err = c.Merge(0, &d); seq > catalog.MaxRecords+1 {
				t.Fatal("no limit")
			}
		}
		if head, _ := c.Head(record.OriginID{1}); !errors.Is(err, catalog.ErrLimit) || head.Watermark != catalog.MaxRecords {
			t.Errorf("%v at %d", err, head.Watermark)
		}
	})
	t.Run("bytes of one origin", func(t *testing.T) {
		c := catalog.New()
		var err error
		seq := uint64(1)
		for ; err == nil && seq < 20_000; seq++ {
			d := delta(1, seq-1, item(seq, fmt.Sprint("i", seq), 512))
			_, err = c.Merge(0, &d)
		}
		if !errors.Is(err, catalog.ErrLimit) || seq*512 > catalog.MaxBytes {
			t.Errorf("%v after %d", err, seq)
		}
	})
	t.Run("bytes and origins in all", func(t *testing.T) {
		l := catalog.DefaultLimits()
		l.Origins, l.Bytes = 3, 1200
		c := catalog.NewWithLimits(l)
		for n := byte(1); n < 10; n++ {
			d := delta(n, 0, item(1, "a", 300))
			_, err := c.Merge(0, &d)
			if want := n > 2; errors.Is(err, catalog.ErrLimit) != want {
				t.Errorf("origin %d: %v", n, err)
			}
		}
		small := catalog.NewWithLimits(l)
		for n := byte(1); n < 10; n++ {
			d := delta(n, 0, item(1, "a", 0))
			_, err := small.Merge(0, &d)
			if want := n > 3; errors.Is(err, catalog.ErrLimit) != want {
				t.Errorf("small origin %d: %v", n, err)
			}
		}
	})
	t.Run("gaps, epochs and resets without end", func(t *testing.T) {
		c := catalog.New()
		for i := range uint64(3000) {
			gap := delta(1, 3*i+1, item(3*i+2, fmt.Sprint("i", i), 0))
			epoch := delta(2, 0, item(1, "a", 0))
			epoch.Epoch, epoch.Base = i+1, 1<<40
			reset := delta(3, 3*i+1, item(3*i+2, "a", 400))
			reset.ResetTo = 1 << 40
			for _, d := range []*catalog.Delta{&gap, &epoch, &reset} {
				_, _ = c.Merge(0, d)
			}
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if m.HeapAlloc > 64<<20 {
			t.Errorf("%d bytes of heap", m.HeapAlloc)
		}
		runtime.KeepAlive(c)
	})
	t.Run("nonsense", func(t *testing.T) {
		good := delta(1, 0, item(1, "a", 0))
		for _, tc := range []struct {
			name string
			edit func(*catalog.Delta)
		}{
			{"no origin", func(d *catalog.Delta) { d.Origin = record.OriginID{} }},
			{"no epoch", func(d *catalog.Delta) { d.Epoch = 0 }},
			{"empty range", func(d *catalog.Delta) { d.To = d.From }},
			{"backwards", func(d *catalog.Delta) { d.From = 9 }},
			{"number outside", func(d *catalog.Delta) { d.Items[0].Seq = 2 }},
			{"number twice", func(d *catalog.Delta) { d.To, d.Items = 2, []catalog.Item{d.Items[0], d.Items[0]} }},
			{"reset beyond itself", func(d *catalog.Delta) { d.To, d.ResetTo = 5, 4 }},
			{"long key", func(d *catalog.Delta) { d.Items[0].Key = record.Key("i/" + strings.Repeat("x", 300)) }},
			{"long value", func(d *catalog.Delta) { d.Items[0].Value = strings.Repeat("x", 2000) }},
			{"bad vector", func(d *catalog.Delta) { d.Items[0].Vector = "short" }},
		} {
			d := good
			d.Items = slices.Clone(good.Items)
			tc.edit(&d)
			c := catalog.New()
			if _, err := c.Merge(0, &d); !errors.Is(err, catalog.ErrDelta) || len(c.Heads()) != 0 {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
	})
}

// TestGossipHeap holds the memory of reference instances in gossip to its
// target.
func TestGossipHeap(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a quiet heap")
	}
	const n, perOrigin = 200_000, 10_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := catalog.New()
	d := catalog.Delta{Epoch: 1}
	i := 0
	for e := range referenceEntries(n, 20) {
		i++
		d.To++
		d.Items = append(d.Items, catalog.Item{Key: e.Key, Seq: d.To, HLC: 1, Value: e.Value})
		if i%perOrigin == 0 {
			d.Origin = record.OriginID{byte(i / perOrigin), 1}
			if _, err := c.Merge(0, &d); err != nil {
				t.Fatal(err)
			}
			d = catalog.Delta{Epoch: 1}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.0f B of live heap per gossiped instance", per)
	if per > 250 {
		t.Errorf("%.0f B per instance, want at most 250", per)
	}
	runtime.KeepAlive(c)
}
