package store

import (
	"errors"
	"strings"
	"testing"
)

// sample is a state with something of every kind.
func sample(t *testing.T) *state {
	m := newMachine()
	for _, c := range []command{
		keyed(reg(instance("a", "10.0.0.1"), instance("a", "10.0.0.2")), "k"),
		reg(alias("b", "db.example.org")),
		drain("x", m.now+1000),
		{op: opDeregisterInstance, target: "a", id: "10.0.0.2"},
		{op: opPutServer, values: []string{string((&ServerInfo{ID: "s1", Name: "node1", Protocol: 3}).append(nil))}},
		{op: opPutMember, values: []string{string((&Member{ID: "m1", Name: "dns1"}).append(nil))}},
	} {
		if o := m.do(c); o.err != nil {
			t.Fatal(o.err)
		}
	}
	return m.f.current.Load()
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	whole := snapshotOf(t, sample(t))
	for i := range len(whole) {
		for _, mask := range []byte{1, 0x80, 0xff} {
			b := []byte(whole)
			b[i] ^= mask
			if _, err := readSnapshot(strings.NewReader(string(b))); !errors.Is(err, errSnapshot) {
				t.Fatalf("byte %d xor %#x: %v, want errSnapshot", i, mask, err)
			}
		}
		if _, err := readSnapshot(strings.NewReader(whole[:i])); !errors.Is(err, errSnapshot) {
			t.Fatalf("cut at %d: %v, want errSnapshot", i, err)
		}
	}
	if _, err := readSnapshot(strings.NewReader(whole + "x")); !errors.Is(err, errSnapshot) {
		t.Errorf("trailing byte: %v, want errSnapshot", err)
	}
}

func TestSnapshotOfManyFrames(t *testing.T) {
	m := newMachine()
	for range 20 {
		var cs []command
		for range 200 {
			in := instance("a", "10.0.0.1")
			in.ID = newID()
			cs = append(cs, reg(in))
		}
		m.f.Apply(m.log(cs...))
	}
	s := m.f.current.Load()
	b := snapshotOf(t, s)
	again, err := readSnapshot(strings.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if again.hash != s.hash || again.entries.len() != s.entries.len() || snapshotOf(t, again) != b {
		t.Error("the restored state differs")
	}
}

func FuzzReadSnapshot(f *testing.F) {
	var b strings.Builder
	if err := writeSnapshot(&b, newMachine().f.current.Load()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.String())
	f.Fuzz(func(t *testing.T, s string) {
		st, err := readSnapshot(strings.NewReader(s))
		if err == nil {
			snapshotOf(t, st)
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	m := newMachine()
	f.Add(string(m.log(reg(instance("a", "10.0.0.1"))).Data))
	f.Fuzz(func(_ *testing.T, s string) {
		t := newMachine().f.current.Load().txn()
		_, _ = t.applyEntry(2, s)
	})
}
