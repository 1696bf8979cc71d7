package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/record"
)

// machine applies commands to a state machine without Raft.
type machine struct {
	f     *fsm
	index uint64
	now   int64
	quota quota
}

func newMachine() *machine {
	m := &machine{f: newFSM(), now: 1_700_000_000_000}
	m.do(command{op: opInit, values: []string{strings.Repeat("k", 32)}})
	return m
}

func (m *machine) log(cs ...command) *raft.Log {
	m.index++
	e := logEntry{time: m.now, maxInstances: m.quota.instances, maxBytes: m.quota.bytes}
	for _, c := range cs {
		e.commands = append(e.commands, string(c.append(nil)))
	}
	return &raft.Log{Index: m.index, Type: raft.LogCommand, Data: e.append(nil)}
}

func (m *machine) do(c command) outcome {
	switch r := m.f.Apply(m.log(c)).(type) {
	case []outcome:
		return r[0]
	case error:
		return outcome{err: r}
	}
	panic("no response")
}

func encoded(in record.Instance) string {
	in.Normalize()
	return string(in.Append(nil))
}

func reg(ins ...record.Instance) command {
	c := command{op: opRegister}
	for _, in := range ins {
		c.values = append(c.values, encoded(in))
	}
	return c
}

func named(service, id, ip string) record.Instance {
	in := instance(service, ip)
	in.ID = id
	return in
}

func alias(service, host string) record.Instance {
	return record.Instance{Service: service, ID: "alias", Host: host, Weight: 1}
}

func at(c command, index uint64) command { c.meta.IfMatch = &index; return c }

func keyed(c command, key string) command { c.meta.IdempotencyKey = key; return c }

func drain(id string, expires int64) command {
	o := record.Overlay{ID: id, Kind: record.OverlayDrain, Service: "a", Expires: expires}
	return command{op: opPutOverlay, values: []string{string(o.Append(nil))}}
}

func service(name string, class record.Class) command {
	s := record.Service{Name: name, Class: class}
	return command{op: opPutService, values: []string{string(s.Append(nil))}}
}

func TestCommandsAreRefused(t *testing.T) {
	// Entry 1 makes the cluster, so the first command below is entry 2.
	tests := []struct {
		name  string
		given []command
		do    command
		want  error
		says  string
	}{
		{"same host label", []command{reg(instance("a", "10.0.0.9"))}, reg(named("a", "10-0-0-9", "10.0.0.8")), ErrConflict, "10-0-0-9"},
		{"same host label in a batch", nil, reg(named("a", "10-0-0-9", "10.0.0.8"), instance("a", "10.0.0.9")), ErrConflict, "[1].id"},
		{"same host label, with port", []command{reg(named("a", "10.0.0.9-80", "10.0.0.9"))}, reg(named("a", "10-0-0-9-80", "10.0.0.9")), ErrConflict, "10-0-0-9-80"},
		{"same host label, IPv6", []command{reg(instance("a", "fd00::1"))}, reg(named("a", "fd000000000000000000000000000001", "10.0.0.8")), ErrConflict, "fd00::1"},
		{"alias beside an instance", []command{reg(instance("a", "10.0.0.9"))}, reg(alias("a", "db.example.org")), ErrConflict, "only instance"},
		{"instance beside an alias", []command{reg(alias("a", "db.example.org"))}, reg(instance("a", "10.0.0.9")), ErrConflict, "db.example.org."},
		{"alias and instance in a batch", nil, reg(alias("a", "db.example.org"), instance("a", "10.0.0.9")), ErrConflict, "only instance"},
		{"register to an ephemeral service", []command{service("a", record.ClassEphemeral)}, reg(instance("a", "10.0.0.9")), ErrConflict, "ephemeral"},
		{"deregister an ephemeral service", []command{service("a", record.ClassEphemeral)}, command{op: opDeregister, target: "a"}, ErrConflict, "ephemeral"},
		{"class change with instances", []command{reg(instance("a", "10.0.0.9"))}, service("a", record.ClassEphemeral), ErrConflict, "1 committed instances"},
		{"unknown service", nil, command{op: opDeregister, target: "a"}, ErrNotFound, "service a"},
		{"unknown instance", []command{reg(instance("a", "10.0.0.9"))}, command{op: opDeregisterInstance, target: "a", id: "10.0.0.8"}, ErrNotFound, "10.0.0.8"},
		{"unknown overlay", nil, command{op: opDeleteOverlay, target: "x"}, ErrNotFound, "overlay x"},
		{"stale If-Match", []command{reg(instance("a", "10.0.0.9"))}, at(reg(instance("a", "10.0.0.9")), 1), ErrPrecondition, "at index 2, not at 1"},
		{"If-Match 0 on what exists", []command{reg(instance("a", "10.0.0.9"))}, at(reg(instance("a", "10.0.0.9")), 0), ErrPrecondition, "at index 2"},
		{"If-Match on what does not exist", nil, at(reg(instance("a", "10.0.0.9")), 7), ErrPrecondition, "at index 0"},
		{"If-Match on a service after an instance went", []command{
			reg(instance("a", "10.0.0.9")), {op: opDeregisterInstance, target: "a", id: "10.0.0.9"},
		}, at(command{op: opDeregister, target: "a"}, 1), ErrPrecondition, "at index 3"},
		{"key with another body", []command{keyed(reg(instance("a", "10.0.0.9")), "k")}, keyed(reg(instance("a", "10.0.0.8")), "k"), ErrKeyReused, `"k"`},
		{"key with another condition", []command{keyed(reg(instance("a", "10.0.0.9")), "k")}, at(keyed(reg(instance("a", "10.0.0.9")), "k"), 2), ErrKeyReused, `"k"`},
		{"second init", nil, command{op: opInit, values: []string{strings.Repeat("z", 32)}}, ErrConflict, "made already"},
		{"bytes that are no instance", nil, command{op: opRegister, values: []string{"\xff"}}, ErrInvalid, "malformed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			for _, c := range tt.given {
				if o := m.do(c); o.err != nil {
					t.Fatal(o.err)
				}
			}
			before := m.f.state()
			o := m.do(tt.do)
			if !errors.Is(o.err, tt.want) || !strings.Contains(fmt.Sprint(o.err), tt.says) {
				t.Errorf("got %v, want %v saying %q", o.err, tt.want, tt.says)
			}
			after := m.f.state()
			if after.Hash() != before.Hash() || after.Len() != before.Len() || after.Keys() != before.Keys() {
				t.Error("a refused command left a trace")
			}
		})
	}
}

func TestCommandsAreAccepted(t *testing.T) {
	tests := []struct {
		name  string
		given []command
		do    command
		want  []item
		live  []record.Key
	}{
		{"first registration", nil, reg(instance("a", "10.0.0.9")), []item{{true, true, 2}}, []record.Key{"i/a/10.0.0.9", "s/a"}},
		{"unchanged", []command{reg(instance("a", "10.0.0.9"))}, reg(instance("a", "10.0.0.9")), []item{{false, false, 2}}, []record.Key{"i/a/10.0.0.9", "s/a"}},
		{"changed", []command{reg(instance("a", "10.0.0.9"))}, reg(named("a", "10.0.0.9", "10.0.0.7")), []item{{false, true, 3}}, []record.Key{"i/a/10.0.0.9", "s/a"}},
		{
			"batch of new, unchanged and changed",
			[]command{reg(instance("a", "10.0.0.1"), instance("a", "10.0.0.2"))},
			reg(instance("a", "10.0.0.3"), instance("a", "10.0.0.1"), named("a", "10.0.0.2", "10.0.0.7")),
			[]item{{true, true, 3}, {false, false, 2}, {false, true, 3}},
			[]record.Key{"i/a/10.0.0.1", "i/a/10.0.0.2", "i/a/10.0.0.3", "s/a"},
		},
		{"alias replaced by itself", []command{reg(alias("a", "db.example.org"))}, reg(alias("a", "db2.example.org")), []item{{false, true, 3}}, []record.Key{"i/a/alias", "s/a"}},
		{"matching If-Match", []command{reg(instance("a", "10.0.0.9"))}, at(command{op: opDeregisterInstance, target: "a", id: "10.0.0.9"}, 2), []item{{false, true, 3}}, []record.Key{"s/a"}},
		{"If-Match 0 on what does not exist", nil, at(reg(instance("a", "10.0.0.9")), 0), []item{{true, true, 2}}, []record.Key{"i/a/10.0.0.9", "s/a"}},
		{
			"service with all its instances",
			[]command{reg(instance("a", "10.0.0.1"), instance("a", "10.0.0.2"), instance("ab", "10.0.0.1"))},
			command{op: opDeregister, target: "a"},
			[]item{{false, true, 3}},
			[]record.Key{"i/ab/10.0.0.1", "s/ab"},
		},
		{"class change of an empty service", []command{service("a", record.ClassEphemeral)}, service("a", record.ClassCritical), []item{{false, true, 3}}, []record.Key{"s/a"}},
		{
			"key repeated",
			[]command{keyed(reg(instance("a", "10.0.0.9")), "k"), {op: opDeregister, target: "a"}},
			keyed(reg(instance("a", "10.0.0.9")), "k"),
			[]item{{true, true, 2}},
			nil,
		},
		{"overlay lifted", []command{drain("x", 0)}, command{op: opDeleteOverlay, target: "x"}, []item{{false, true, 3}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			for _, c := range tt.given {
				if o := m.do(c); o.err != nil {
					t.Fatal(o.err)
				}
			}
			o := m.do(tt.do)
			if o.err != nil || !slices.Equal(o.items, tt.want) {
				t.Errorf("got %+v, %v, want %+v", o.items, o.err, tt.want)
			}
			var live []record.Key
			for e := range m.f.state().Entries() {
				live = append(live, e.Key)
			}
			if !slices.Equal(live, tt.live) {
				t.Errorf("live %q, want %q", live, tt.live)
			}
		})
	}
}

func TestQuotaBoundsGrowthOnly(t *testing.T) {
	m := newMachine()
	m.quota = quota{instances: 2}
	m.do(reg(instance("a", "10.0.0.1"), instance("a", "10.0.0.2")))
	if o := m.do(reg(instance("a", "10.0.0.3"))); !errors.Is(o.err, ErrQuota) {
		t.Errorf("third instance: %v, want ErrQuota", o.err)
	}
	if o := m.do(reg(named("a", "10.0.0.2", "10.0.0.9"))); o.err != nil {
		t.Errorf("change at the quota: %v", o.err)
	}
	m.quota = quota{bytes: uint64(m.f.state().Bytes())}
	if o := m.do(drain("x", 0)); !errors.Is(o.err, ErrQuota) {
		t.Errorf("overlay above the quota of bytes: %v, want ErrQuota", o.err)
	}
	if o := m.do(command{op: opDeregisterInstance, target: "a", id: "10.0.0.1"}); o.err != nil {
		t.Errorf("removal at the quota: %v", o.err)
	}
}

func TestKeysAreForgottenByLeaderTime(t *testing.T) {
	m := newMachine()
	m.do(keyed(reg(instance("a", "10.0.0.9")), "k"))
	m.now += keyTTL.Milliseconds()
	if o := m.do(keyed(reg(instance("a", "10.0.0.8")), "k")); !errors.Is(o.err, ErrKeyReused) {
		t.Errorf("after %s: %v, want ErrKeyReused", keyTTL, o.err)
	}
	m.now++
	if o := m.do(keyed(reg(instance("a", "10.0.0.8")), "k")); o.err != nil {
		t.Errorf("later: %v", o.err)
	}
	m.now -= time.Hour.Milliseconds() // a leader with another clock
	m.do(keyed(reg(instance("a", "10.0.0.7")), "k2"))
	if got := m.f.state().Keys(); got != 2 {
		t.Errorf("%d keys after the clock went back, want 2", got)
	}
}

func TestKeysAreBounded(t *testing.T) {
	m := newMachine()
	c := reg(instance("a", "10.0.0.9"))
	var cs []command
	for i := range maxKeys {
		cs = append(cs, keyed(c, fmt.Sprint(i)))
	}
	m.f.Apply(m.log(cs...))
	if o := m.do(keyed(c, "more")); !errors.Is(o.err, ErrTooManyKeys) {
		t.Errorf("at the bound: %v, want ErrTooManyKeys", o.err)
	}
	if o := m.do(keyed(c, "7")); o.err != nil {
		t.Errorf("known key at the bound: %v", o.err)
	}
	if o := m.do(c); o.err != nil {
		t.Errorf("without a key at the bound: %v", o.err)
	}
}

func TestExpiryRemovesWhatTheLeaderSaw(t *testing.T) {
	m := newMachine()
	in := instance("a", "10.0.0.9")
	in.Expires = m.now + 1000
	m.do(reg(in, instance("a", "10.0.0.8")))
	m.do(drain("x", m.now+2000))
	m.do(drain("y", 0))
	in.Expires = m.now + 3000
	m.do(reg(in)) // a later end replaces the earlier one
	expire := func() (live []record.Key) {
		m.do(command{op: opExpire})
		for e := range m.f.state().Entries() {
			live = append(live, e.Key)
		}
		return live
	}
	m.now += 1999
	if got, want := expire(), []record.Key{"i/a/10.0.0.8", "i/a/10.0.0.9", "o/x", "o/y", "s/a"}; !slices.Equal(got, want) {
		t.Errorf("just before: %q, want %q", got, want)
	}
	m.now++
	if got, want := expire(), []record.Key{"i/a/10.0.0.8", "i/a/10.0.0.9", "o/y", "s/a"}; !slices.Equal(got, want) {
		t.Errorf("overlay: %q, want %q", got, want)
	}
	m.now += 1000
	if got, want := expire(), []record.Key{"i/a/10.0.0.8", "o/y", "s/a"}; !slices.Equal(got, want) {
		t.Errorf("instance: %q, want %q", got, want)
	}
}

func TestUnknownCommandStopsTheStateMachine(t *testing.T) {
	for _, tt := range []struct{ name, data string }{
		{"command type", string((&logEntry{commands: []string{string((&command{op: opLast + 1}).append(nil))}}).append(nil))},
		{"command field", string((&logEntry{commands: []string{string(record.AppendUint((&command{op: opExpire}).append(nil), 90, 1))}}).append(nil))},
		{"entry field", string(record.AppendUint((&logEntry{}).append(nil), 90, 1))},
		{"entry version", "\x02"},
		{"empty entry", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			stopped := 0
			m.f.stop = func(error) { stopped++ }
			before := m.f.state().Position()
			m.index++
			r := m.f.Apply(&raft.Log{Index: m.index, Type: raft.LogCommand, Data: []byte(tt.data)})
			if err, ok := r.(error); !ok || !errors.Is(err, ErrStopped) || stopped != 1 {
				t.Fatalf("got %v, stopped %d times", r, stopped)
			}
			if o := m.do(reg(instance("a", "10.0.0.9"))); !errors.Is(o.err, ErrStopped) {
				t.Errorf("next command: %v, want ErrStopped", o.err)
			}
			if _, err := m.f.Snapshot(); !errors.Is(err, ErrStopped) {
				t.Errorf("snapshot: %v, want ErrStopped", err)
			}
			if got := m.f.state().Position(); got != before {
				t.Errorf("position %s, want %s", got, before)
			}
		})
	}
}

func TestTombstonesAreBounded(t *testing.T) {
	m := newMachine()
	before := m.f.state().Position()
	for round := range maxTombstones/1000 + 1 {
		var cs []command
		for i := range 1000 {
			cs = append(cs, reg(named("a", fmt.Sprintf("n%d-%d", round, i), "10.0.0.1")))
		}
		m.f.Apply(m.log(cs...))
		m.do(command{op: opDeregister, target: "a"})
	}
	s := m.f.state()
	if s.Tombstones() > maxTombstones || s.Floor() == 0 {
		t.Fatalf("%d tombstones, floor %d", s.Tombstones(), s.Floor())
	}
	if _, ok := s.Since(before); ok {
		t.Error("Since before the floor claims to know")
	}
	if _, ok := s.Since(record.Position{Generation: 1, Index: s.Floor()}); !ok {
		t.Error("Since at the floor does not know")
	}
	if _, ok := s.Since(record.Position{Generation: 2, Index: s.Position().Index}); ok {
		t.Error("Since of another generation claims to know")
	}
}
