package catalog

import (
	"slices"
	"testing"
	"unsafe"

	"github.com/fluid-sd/fluid/plugin/record"
)

// replicas returns an owner's catalog and a reader that is level with it.
func replicas(t *testing.T) (ow *Owner, from, to *Catalog, id record.OriginID) {
	t.Helper()
	id = record.OriginID{1}
	from, to = New(), New()
	ow, _, err := from.Own(1000, id, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	mergeInto(t, to, from.Pull(Want{Origin: id}, 1)...)
	for _, name := range []string{"a", "b", "c", "d"} {
		registerAt(t, ow, to, name, 1)
	}
	it, err := ow.Withdraw(1000, record.InstanceKey("web", "d"))
	if err != nil {
		t.Fatal(err)
	}
	d, _ := ow.Commit(1000, it)
	mergeInto(t, to, d)
	return ow, from, to, id
}

func registerAt(t *testing.T, ow *Owner, to *Catalog, name string, weight uint16) {
	t.Helper()
	in := &record.Instance{Service: "web", ID: name, Weight: weight, Addrs: schedAddr}
	it, _, err := ow.Register(1000, in)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := ow.Commit(1000, it)
	if to != nil {
		mergeInto(t, to, d)
	}
}

func mergeInto(t *testing.T, c *Catalog, deltas ...Delta) {
	t.Helper()
	for i := range deltas {
		if _, err := c.Merge(1000, &deltas[i]); err != nil {
			t.Fatal(err)
		}
	}
}

// flip changes a byte of a live record in memory.
func flip(c *Catalog, id record.OriginID, offset int) {
	for _, cl := range c.origins[id].cur.log {
		if !cl.dead && cl.in != nil {
			cl.value = string([]byte(cl.value)) // memory of its own
			*(*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(cl.value)), offset)) ^= 0x40
			return
		}
	}
}

// TestRot lets memory change: it is noticed, and one reset makes the copy good,
// whatever the byte meant. The byte at 1 is the length of the instance's id, by
// which it is found.
func TestRot(t *testing.T) {
	for _, offset := range []int{0, 1, 2, 5} {
		_, from, to, id := replicas(t)
		want := content(from)
		if got := content(to); got != want {
			t.Fatalf("copies differ before:\n%s\n%s", got, want)
		}
		if _, rotten := to.Scrub(record.OriginID{}, 100); len(rotten) > 0 {
			t.Fatalf("%v is held rotten", rotten)
		}
		flip(to, id, offset)
		if _, rotten := to.Scrub(record.OriginID{}, 100); !slices.Contains(rotten, id) {
			t.Fatalf("offset %d: nothing was noticed", offset)
		}
		if w, ok := to.Missing(from.origins[id].head()); ok {
			t.Fatalf("%v is missing; only doubt may bring it", w)
		}
		w, ok := to.Doubt(id)
		if !ok || !to.Doubted(id) {
			t.Fatal("no doubt")
		}
		if got := to.Pull(Want{Origin: id, Epoch: 1, Nonce: 1, Whole: true}, 1<<20); got != nil {
			t.Error("a copy in doubt was passed on as a whole")
		}
		if got := to.Pull(Want{Origin: id}, 1<<20); got != nil {
			t.Error("a copy in doubt was passed on to one who has nothing")
		}
		mergeInto(t, to, from.Pull(w, 1<<20)...)
		if to.Doubted(id) {
			t.Error("still in doubt")
		}
		if got := content(to); got != want {
			t.Errorf("offset %d: holds\n%s\nwant\n%s", offset, got, want)
		}
		if _, rotten := to.Scrub(record.OriginID{}, 100); len(rotten) > 0 {
			t.Errorf("offset %d: still rotten", offset)
		}
	}
}

// TestDiffers compares heads only where the content must be equal.
func TestDiffers(t *testing.T) {
	ow, from, to, id := replicas(t)
	head := ow.Head()
	if to.Differs(head) {
		t.Error("equal copies differ")
	}
	other := head
	other.Hash ^= 2
	if !to.Differs(other) {
		t.Error("another content is no difference")
	}
	if from.Differs(other) {
		t.Error("the owner doubts its own origin")
	}
	if _, ok := from.Doubt(id); ok {
		t.Error("the owner asks for its own origin")
	}
	for name, edit := range map[string]func(*Head){
		"watermark": func(h *Head) { h.Watermark++ },
		"epoch":     func(h *Head) { h.Epoch++ },
		"unknown":   func(h *Head) { h.Hash = 0 },
		"origin":    func(h *Head) { h.Origin[3] = 1 },
	} {
		h := other
		if edit(&h); to.Differs(h) {
			t.Errorf("copies differ by %s alone", name)
		}
	}
	registerAt(t, ow, nil, "e", 1)
	it, _, _ := ow.Register(1000, &record.Instance{Service: "web", ID: "f", Weight: 1, Addrs: schedAddr})
	d, _ := ow.Commit(1000, it)
	mergeInto(t, to, d) // above the watermark
	if h, _ := to.Head(id); h.Hash != 0 {
		t.Error("a copy with a gap tells the hash of its content")
	}
}

// TestDoubtKeepsWhatIsNewer shows that a reset of a doubted copy neither goes
// back nor loses what is known above it.
func TestDoubtKeepsWhatIsNewer(t *testing.T) {
	ow, from, to, id := replicas(t)
	w, _ := to.Doubt(id)
	old := from.Pull(w, 1<<20)
	registerAt(t, ow, to, "a", 2)  // the watermark moves on
	registerAt(t, ow, nil, "b", 2) // lost
	registerAt(t, ow, to, "c", 2)  // above the gap
	before := content(to)
	mergeInto(t, to, old...)
	if !to.Doubted(id) || content(to) != before {
		t.Errorf("a reset from before the watermark was taken:\n%s\nbefore\n%s", content(to), before)
	}
	to.Trust(id)
	to.Doubt(id)
	mergeInto(t, to, from.Pull(Want{Origin: id, Epoch: w.Epoch, Nonce: w.Nonce, Whole: true}, 1<<20)...)
	if got, want := content(to), content(from); got != want {
		t.Errorf("holds\n%s\nwant\n%s", got, want)
	}
}

// TestScrubGoesAround looks at every origin in turn, a bounded number at a time.
func TestScrubGoesAround(t *testing.T) {
	c := New()
	for i := range byte(10) {
		mergeInto(t, c, Delta{Origin: record.OriginID{1, i}, Epoch: 1, To: 1})
	}
	seen := map[record.OriginID]bool{}
	var last record.OriginID
	for range 5 {
		last, _ = c.Scrub(last, 2)
		seen[last] = true
	}
	if len(seen) != 5 {
		t.Errorf("ended at %d places, want 5", len(seen))
	}
	for i := range byte(5) {
		if !seen[record.OriginID{1, 2*i + 1}] {
			t.Errorf("the scrub did not end at origin %d", 2*i+1)
		}
	}
}
