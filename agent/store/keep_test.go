package store

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/fluid-sd/fluid/plugin/record"
)

// A few bytes that the state keeps of an entry do not keep the entry.
func TestStateKeepsNoEntry(t *testing.T) {
	fence := record.Fence{Kind: record.FenceReap, Origin: record.OriginID{1}, Epoch: 8}
	e := logEntry{time: 1}
	for _, c := range []command{
		reg(instance("a", "10.0.0.1")), service("b", record.ClassCritical), drain("a", 0),
		{op: opPutFence, values: []string{string(fence.Append(nil))}, meta: Meta{Principal: "p", IdempotencyKey: "k"}},
		{op: opPutMember, values: []string{string((&Member{ID: "m", Name: "dns"}).append(nil))}},
		{op: opPutServer, values: []string{string((&ServerInfo{ID: "s", Name: "n1"}).append(nil))}},
		{op: opDeleteFence, target: string(fence.Key())},
	} {
		e.commands = append(e.commands, string(c.append(nil)))
	}
	data := string(e.append(nil))
	x := (&state{}).txn()
	a, err := x.applyEntry(1, data)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range a.outcomes {
		if o.err != nil {
			t.Fatalf("command %d: %v", i, o.err)
		}
	}
	first := uintptr(unsafe.Pointer(unsafe.StringData(data)))
	check := func(what, s string) {
		t.Helper()
		if p := uintptr(unsafe.Pointer(unsafe.StringData(s))); p >= first && p < first+uintptr(len(data)) {
			t.Errorf("%s: %q lies in the entry", what, s)
		}
	}
	s := x.commit()
	for k, v := range s.entries.all() {
		check("key", k)
		check("entry", string(v.Key))
		check("value", v.Value)
	}
	for k := range s.tombOf.all() {
		check("tombstone", k)
	}
	for k, v := range s.keys.all() {
		check("idempotency key", k)
		check("reply", v.reply)
	}
	for k, v := range s.services.all() {
		check(fmt.Sprintf("service %d", v.instances), k)
	}
	for k, v := range s.members.all() {
		check("member", k)
		check("member", v.Name)
	}
	for k, v := range s.servers.all() {
		check("server", k)
		check("server", v.Name)
	}
}

// What is read of a committed instance without decoding it is what decoding
// gives.
func TestLifetime(t *testing.T) {
	in := instance("a", "10.0.0.1")
	in.Tags, in.Meta, in.TTL = []string{"blue"}, []record.Pair{{Key: "k", Value: "v"}}, 5e9
	for _, times := range [][2]int64{{0, 0}, {1, 0}, {0, 2}, {1_700_000_000_000, 4_102_444_800_000}} {
		in.Registered, in.Expires = times[0], times[1]
		want, err := record.DecodeInstance(encoded(in))
		if err != nil {
			t.Fatal(err)
		}
		if registered, expires := lifetime(encoded(in)); registered != want.Registered || expires != want.Expires || expires != times[1] {
			t.Errorf("%v: got %d and %d", times, registered, expires)
		}
	}
}
