package store

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// commands draws a command that may or may not be accepted.
func commands() *rapid.Generator[command] {
	return rapid.Custom(func(t *rapid.T) command {
		svc := rapid.SampledFrom([]string{"a", "b", "ab"}).Draw(t, "service")
		ip := rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"}).Draw(t, "ip")
		var c command
		switch rapid.IntRange(0, 8).Draw(t, "op") {
		case 0, 1, 2:
			in := instance(svc, ip)
			in.Port = rapid.Uint16Range(0, 2).Draw(t, "port")
			in.Expires = rapid.SampledFrom([]int64{0, 0, 1_700_000_000_500, 1_700_000_002_000}).Draw(t, "expires")
			c = reg(in)
		case 3:
			c = command{op: opDeregisterInstance, target: svc, id: ip}
		case 4:
			c = command{op: opDeregister, target: svc}
		case 5:
			c = service(svc, rapid.SampledFrom([]record.Class{record.ClassCritical, record.ClassEphemeral}).Draw(t, "class"))
		case 6:
			c = drain(svc, rapid.SampledFrom([]int64{0, 1_700_000_001_000}).Draw(t, "until"))
		case 7:
			c = command{op: opDeleteOverlay, target: svc}
		case 8:
			c = command{op: opExpire}
		}
		c.meta.IdempotencyKey = rapid.SampledFrom([]string{"", "", "k1", "k2"}).Draw(t, "key")
		return c
	})
}

// TestStateAgainstNaiveModel compares hash, counts and Since with values
// computed from the list of live entries, and the state with the one that a
// snapshot of it gives.
func TestStateAgainstNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		history := []State{m.f.state()}
		for range rapid.IntRange(1, 40).Draw(t, "n") {
			m.now += rapid.Int64Range(0, 300).Draw(t, "ms")
			m.do(commands().Draw(t, "command"))
			history = append(history, m.f.state())
		}
		now := m.f.state()
		live := map[record.Key]record.Entry{}
		var hash uint64
		var bytes int64
		instances := 0
		for e := range now.Entries() {
			live[e.Key] = e
			hash += catalog.EntryHash(e)
			bytes += int64(len(e.Key) + len(e.Value))
			if e.Key.Kind() == record.KindInstance {
				instances++
			}
		}
		if now.Hash() != hash || now.Bytes() != bytes || now.Instances() != instances {
			t.Fatalf("hash %x bytes %d instances %d, want %x %d %d", now.Hash(), now.Bytes(), now.Instances(), hash, bytes, instances)
		}
		for _, old := range history {
			es, ok := now.Since(old.Position())
			if !ok {
				t.Fatalf("Since(%s) is not known", old.Position())
			}
			got := map[record.Key]record.Entry{}
			for e := range old.Entries() {
				got[e.Key] = e
			}
			last := uint64(0)
			for _, e := range es {
				if e.Index < last || e.Index <= old.Position().Index {
					t.Fatalf("Since(%s): entry %+v after index %d", old.Position(), e, last)
				}
				last = e.Index
				if e.Deleted {
					delete(got, e.Key)
				} else {
					got[e.Key] = e
				}
			}
			if len(got) != len(live) {
				t.Fatalf("since %s: %d entries, want %d", old.Position(), len(got), len(live))
			}
			for k, e := range live {
				if got[k] != e {
					t.Fatalf("since %s: %q is %+v, want %+v", old.Position(), k, got[k], e)
				}
			}
		}
		copied := snapshotOf(t, now.s)
		again, err := readSnapshot(strings.NewReader(copied))
		if err != nil {
			t.Fatal(err)
		}
		if snapshotOf(t, again) != copied {
			t.Fatal("a restored snapshot gives another snapshot")
		}
		if again.bytes != bytes || again.instances != instances || again.pos != now.Position() || again.expiry.len() != now.s.expiry.len() || again.keyAges.len() != now.s.keyAges.len() {
			t.Fatal("a restored state differs")
		}
	})
}

func snapshotOf(t interface{ Fatal(...any) }, s *state) string {
	var b bytes.Buffer
	if err := writeSnapshot(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestBatchingChangesNothing applies one log in batches of different sizes.
func TestBatchingChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		var logs []*raft.Log
		for range rapid.IntRange(1, 30).Draw(t, "n") {
			m.now += rapid.Int64Range(0, 300).Draw(t, "ms")
			logs = append(logs, m.log(rapid.SliceOfN(commands(), 1, 3).Draw(t, "commands")...))
		}
		other := newMachine()
		for rest := logs; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "batch")
			other.f.ApplyBatch(rest[:n])
			rest = rest[n:]
		}
		for _, l := range logs {
			m.f.Apply(l)
		}
		if snapshotOf(t, m.f.current.Load()) != snapshotOf(t, other.f.current.Load()) {
			t.Fatal("states differ")
		}
	})
}

func TestLabelsFindTheirIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var id string
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			id = record.DefaultID(netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4"))), rapid.Uint16().Draw(t, "port"))
		case 1:
			id = record.DefaultID(netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "v6"))).Unmap(), rapid.Uint16().Draw(t, "port"))
		case 2:
			id = rapid.StringMatching(`[0-9]{1,3}(-[0-9]{1,3}){3,4}`).Draw(t, "like v4")
		case 3:
			id = rapid.StringMatching(`[0-9a-f]{32}(-[0-9]{1,5})?`).Draw(t, "like v6")
		}
		ids := idsOfLabel(record.HostLabel(id), "")
		if !slices.Contains(ids, id) {
			t.Fatalf("%q has label %q, whose ids are %q", id, record.HostLabel(id), ids)
		}
		for _, other := range ids {
			if record.HostLabel(other) != record.HostLabel(id) {
				t.Fatalf("%q is not of label %q", other, record.HostLabel(id))
			}
		}
	})
}
