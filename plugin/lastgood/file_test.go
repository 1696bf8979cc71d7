package lastgood_test

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fluid-sd/fluid/plugin/lastgood"
	"github.com/fluid-sd/fluid/plugin/record"
)

// memory is a loader that keeps what it was given.
type memory struct {
	staged, entries []record.Entry
	pos             record.Position
	hash            uint64 // that Commit demands; 0: any
	gossip          []string
}

func (m *memory) Base(pos record.Position, entries iter.Seq[record.Entry]) {
	m.staged, m.pos = slices.Collect(entries), pos
}

func (m *memory) Commit(hash uint64) error {
	if m.hash != 0 && hash != m.hash {
		return errors.New("other hash")
	}
	m.entries = m.staged
	return nil
}

func (m *memory) Change(prev, pos record.Position, entries []record.Entry) error {
	if prev != m.pos {
		return errors.New("gap")
	}
	m.pos, m.entries = pos, append(m.entries, entries...)
	return nil
}

func (m *memory) Gossip(frame []byte) { m.gossip = append(m.gossip, string(frame)) }

func at(i uint64) record.Position { return record.Position{Generation: 3, Index: i} }

func entries(n int) []record.Entry {
	out := make([]record.Entry, n)
	for i := range out {
		out[i] = record.Entry{Key: record.Key(fmt.Sprintf("i/svc/%d", i)), Value: fmt.Sprintf("value %d", i), Index: uint64(i + 1)}
	}
	return out
}

var head = lastgood.Head{Member: "host-dns-1", Cluster: "c1", Serial: 77}

// write makes a file with a base, gossip and three batches.
func write(t *testing.T, path string, base int) {
	t.Helper()
	f := lastgood.New(path)
	if err := f.Append(at(1), at(2), nil); !errors.Is(err, lastgood.ErrRewrite) {
		t.Fatalf("Append to a file that was never written: %v, want ErrRewrite", err)
	}
	err := f.Replace(head, lastgood.State{
		Position: at(10), Entries: slices.Values(entries(base)), Hash: 99,
		Gossip: func(yield func([]byte) bool) { yield([]byte("first")) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		if err := f.Append(at(10+i), at(11+i), []record.Entry{{Key: "s/late", Deleted: i == 1, Index: 11 + i}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.AppendSerial(78); err != nil {
		t.Fatal(err)
	}
	if err := f.AppendGossip([]byte("second")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, base := range []int{0, 1, 20000} {
		t.Run(fmt.Sprint(base), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "last.good")
			write(t, path, base)
			m := &memory{hash: 99}
			f, got, err := lastgood.Open(path, m)
			if err != nil {
				t.Fatal(err)
			}
			if want := (lastgood.Head{Member: "host-dns-1", Cluster: "c1", Serial: 78}); got != want {
				t.Errorf("head %+v, want %+v", got, want)
			}
			want := append(entries(base), record.Entry{Key: "s/late", Index: 11}, record.Entry{Key: "s/late", Deleted: true, Index: 12}, record.Entry{Key: "s/late", Index: 13})
			if !slices.Equal(m.entries, want) || m.pos != at(13) {
				t.Errorf("%d entries at %v, want %d at %v", len(m.entries), m.pos, len(want), at(13))
			}
			if !slices.Equal(m.gossip, []string{"first", "second"}) {
				t.Errorf("gossip %q", m.gossip)
			}
			// What was opened can be appended to.
			if err := f.Append(at(13), at(14), nil); err != nil {
				t.Fatal(err)
			}
			m = &memory{}
			if _, _, err := lastgood.Open(path, m); err != nil || m.pos != at(14) {
				t.Errorf("after one more batch: at %v, %v", m.pos, err)
			}
		})
	}
}

// A file cut anywhere, as by a crash, or with any byte changed, never gives a
// state that was not there: the base loads whole or not at all, and batches
// load up to the first that is damaged.
func TestDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last.good")
	write(t, path, 5)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, data []byte) (usable bool) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		m := &memory{hash: 99}
		f, _, err := lastgood.Open(path, m)
		defer func() { _ = f.Close() }()
		if err != nil {
			if !errors.Is(err, lastgood.ErrCorrupt) {
				t.Errorf("error %v, want ErrCorrupt", err)
			}
			if len(m.entries) > 0 {
				t.Errorf("%d entries of a corrupt base were committed", len(m.entries))
			}
			return false
		}
		if n := len(m.entries); n < 5 || n > 8 || !slices.Equal(m.entries[:5], entries(5)) || m.pos != at(5+uint64(n)) {
			t.Errorf("%d entries at %v", n, m.pos)
		}
		return true
	}
	usable := 0
	for n := range whole {
		if check(t, whole[:n]) {
			usable++
		}
		if t.Failed() {
			t.Fatalf("cut at %d of %d", n, len(whole))
		}
	}
	if usable < 100 {
		t.Errorf("only %d of %d cuts left a usable file; those in the journal should", usable, len(whole))
	}
	for n := range whole {
		data := slices.Clone(whole)
		data[n] ^= 0x10
		check(t, data)
		if t.Failed() {
			t.Fatalf("bit flipped at %d of %d", n, len(whole))
		}
	}
}

// After a torn batch was cut off, appending goes on where it was.
func TestAppendAfterTear(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last.good")
	f := lastgood.New(path)
	if err := f.Replace(head, lastgood.State{Position: at(1), Entries: slices.Values(entries(2))}); err != nil {
		t.Fatal(err)
	}
	if err := f.Append(at(1), at(2), entries(1)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	m := &memory{}
	g, _, err := lastgood.Open(path, m)
	if err != nil || m.pos != at(1) {
		t.Fatalf("at %v, %v; want the base", m.pos, err)
	}
	if err := g.Append(at(1), at(5), entries(1)); err != nil {
		t.Fatal(err)
	}
	m = &memory{}
	if _, _, err := lastgood.Open(path, m); err != nil || m.pos != at(5) || len(m.entries) != 3 {
		t.Errorf("at %v with %d entries, %v", m.pos, len(m.entries), err)
	}
}

// A journal that outgrows its base asks to be written anew.
func TestOutgrown(t *testing.T) {
	f := lastgood.New(filepath.Join(t.TempDir(), "last.good"))
	state := lastgood.State{Position: at(1), Entries: slices.Values(entries(1))}
	if err := f.Replace(head, state); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 1<<20)
	var err error
	for i := 0; i < 20 && err == nil; i++ {
		err = f.AppendGossip(big)
	}
	if !errors.Is(err, lastgood.ErrRewrite) {
		t.Errorf("after 20 MiB: %v, want ErrRewrite", err)
	}
	if err := f.Replace(head, state); err != nil {
		t.Fatal(err)
	}
	if err := f.AppendGossip(big); err != nil {
		t.Errorf("after writing anew: %v", err)
	}
}

// A failed write leaves the old file as it is.
func TestReplaceFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "last.good")
	write(t, path, 5)
	f := lastgood.New(filepath.Join(dir, "missing", "last.good"))
	if err := f.Replace(head, lastgood.State{Position: at(1), Entries: slices.Values(entries(1))}); err == nil {
		t.Error("wrote into a directory that is not there")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	f.Add([]byte("fluid last good\x00\x01"))
	file := lastgood.New(filepath.Join(dir, "seed"))
	if err := file.Replace(head, lastgood.State{Position: at(1), Entries: slices.Values(entries(3))}); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(filepath.Join(dir, "seed"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		file, _, _ := lastgood.Open(path, &memory{})
		_ = file.Close()
	})
}
