package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/record"
)

// The linearizability test runs clients against five agents in fake time while
// a schedule of faults goes on, and lets porcupine judge the history.

// linOp is an operation on one key: an instance, whose value is its port, or
// an overlay, whose value is its weight. 0 is "does not exist".
type linOp struct {
	kind  byte // 'p' put, 'd' delete, 'r' read
	key   int
	value uint16
}

// linOut is the answer.
type linOut struct {
	value            uint16 // read
	created, changed bool   // put
	missing          bool   // delete: there was none
	unknown          bool   // no answer: it may be done now, later or never
}

var linModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := make([][]porcupine.Operation, linKeys)
		for _, op := range history {
			k := op.Input.(linOp).key
			by[k] = append(by[k], op)
		}
		return by
	},
	Init: func() any { return uint16(0) },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(uint16), input.(linOp), output.(linOut)
		switch in.kind {
		case 'p':
			return out.unknown || out.created == (now == 0) && out.changed == (now != in.value), in.value
		case 'd':
			return out.unknown || out.missing == (now == 0), uint16(0)
		}
		return out.value == now, now
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

const linKeys = 4 // three instances and an overlay

// linRun is one run: a seed decides everything but the scheduling of goroutines.
type linRun struct {
	t     *testing.T
	c     *testCluster
	rnd   *rand.Rand
	names []string
	wiped int
	plan  []string // the schedule of faults, for replay

	clock atomic.Int64
	mu    sync.Mutex // guards ops
	ops   []porcupine.Operation

	amnesia bool // planted bug: a wiped server comes back under its old id
}

// runLinear runs one seed and reports whether its history is linearizable.
// plant, if not nil, breaks each store.
func runLinear(t *testing.T, seed uint64, plant func(*Store), amnesia bool) (ok bool, plan []string) {
	synctest.Test(t, func(t *testing.T) {
		r := &linRun{t: t, rnd: rand.New(rand.NewPCG(seed, 3)), amnesia: amnesia, names: []string{"n1", "n2", "n3", "n4", "n5"}}
		voters := 3 + 2*r.rnd.IntN(2)
		r.c = newCluster(t)
		// A leader that is slow to notice that it has lost its quorum, as one
		// that was paused is, may go on for seconds beside its successor.
		slow := r.rnd.IntN(2) == 0
		r.c.conf = func(cfg *Config) {
			if slow && cfg.Name == "n1" {
				cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaseTimeout = 8*time.Second, 8*time.Second, 8*time.Second
			}
			cfg.Voters, cfg.StabilizationTime = voters, 2*time.Second
			cfg.WriteTimeout, cfg.planted = 2*time.Second, plant
			cfg.SnapshotThreshold, cfg.SnapshotInterval = 20, 5*time.Second
		}
		r.c.start("n1", true)
		for _, name := range r.names[1:] {
			r.c.start(name, false)
			r.c.join(name)
		}
		r.c.settle(voters)
		ok = r.run()
		plan = r.plan
	})
	return ok, plan
}

func (r *linRun) run() bool {
	ctx, cancel := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	for client := range 4 {
		seed := r.rnd.Uint64()
		wg.Go(func() { r.client(ctx, client, rand.New(rand.NewPCG(seed, 1))) })
	}
	for range 6 {
		r.fault()
		pass(time.Duration(r.rnd.IntN(4000)) * time.Millisecond)
	}
	r.heal()
	pass(5 * time.Second)
	cancel()
	wg.Wait()
	for key := range linKeys {
		last := func() bool { return r.do(r.t.Context(), 9, r.c.node("n1"), linOp{kind: 'r', key: key}) }
		if r.amnesia { // too many may have forgotten who they are to have a quorum
			last()
		} else {
			r.c.until("a last read", last)
		}
	}
	return porcupine.CheckOperations(linModel, r.ops)
}

func (r *linRun) client(ctx context.Context, id int, rnd *rand.Rand) {
	for ctx.Err() == nil {
		op := linOp{kind: "pppddrrrr"[rnd.IntN(9)], key: rnd.IntN(linKeys), value: uint16(1 + rnd.IntN(60000))}
		if s := r.c.node(r.names[rnd.IntN(len(r.names))]); s != nil {
			r.do(ctx, id, s, op)
		}
		pass(time.Duration(rnd.IntN(300)) * time.Millisecond)
	}
}

// do runs one operation and records it, unless it certainly did not happen.
func (r *linRun) do(ctx context.Context, client int, s *Store, op linOp) bool {
	call := r.clock.Add(1)
	out, err := linApply(context.WithoutCancel(ctx), s, op)
	done := r.clock.Add(1)
	switch {
	case errors.Is(err, ErrUnknown) && op.kind != 'r':
		out.unknown, done = true, 1<<40
	case err != nil && op.kind != 'r' && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrDiskFull):
		r.t.Errorf("%+v: %v", op, err)
		return false
	case err != nil:
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: op, Call: call, Output: out, Return: done})
	return true
}

func linApply(ctx context.Context, s *Store, op linOp) (out linOut, err error) {
	const overlay = linKeys - 1
	id := fmt.Sprintf("k%d", op.key)
	var r Result
	switch {
	case op.kind == 'p' && op.key == overlay:
		r, err = s.PutOverlay(ctx, Meta{}, record.Overlay{ID: id, Kind: record.OverlayWeight, Service: "lin", Weight: op.value})
		return linOut{created: r.Created, changed: r.Changed}, err
	case op.kind == 'd' && op.key == overlay:
		_, err = s.DeleteOverlay(ctx, Meta{}, id)
	case op.kind == 'p':
		in := named("lin", id, "10.0.0.1")
		in.Port = op.value
		var rs []Result
		if rs, err = s.Register(ctx, Meta{}, []record.Instance{in}); err == nil {
			out = linOut{created: rs[0].Created, changed: rs[0].Changed}
		}
		return out, err
	case op.kind == 'd':
		_, err = s.DeregisterInstance(ctx, Meta{}, "lin", id)
	default:
		st, err := s.Linearizable(ctx)
		if err != nil {
			return out, err
		}
		if o, _, ok := st.Overlay(id); ok && op.key == overlay {
			out.value = o.Weight
		} else if in, _, ok := st.Instance("lin", id); ok {
			out.value = in.Port
		}
		return out, nil
	}
	if errors.Is(err, ErrNotFound) {
		return linOut{missing: true}, nil
	}
	return out, err
}

func (r *linRun) note(format string, args ...any) {
	r.plan = append(r.plan, fmt.Sprintf(format, args...))
}

// down returns the names of the nodes that do not run.
func (r *linRun) down() (down []string) {
	for _, n := range r.names {
		if r.c.node(n) == nil {
			down = append(down, n)
		}
	}
	return down
}

// fault does one thing that must not matter. At most two of five nodes are
// down or wiped at a time.
func (r *linRun) fault() {
	victim := r.names[r.rnd.IntN(len(r.names))]
	if l := r.c.leader(); l != nil && r.rnd.IntN(2) == 0 {
		victim = l.cfg.Name
	}
	other := r.names[r.rnd.IntN(len(r.names))]
	k := r.rnd.IntN(8)
	if r.amnesia && r.rnd.IntN(2) == 0 {
		k = 5
	}
	switch {
	case k == 0 && len(r.down()) < 2 && r.c.node(victim) != nil:
		r.note("kill %s", victim)
		r.c.kill(victim)
	case k == 1:
		r.note("isolate %s", victim)
		r.c.isolate(victim, true)
	case k == 2 && victim != other:
		r.note("cut %s to %s", victim, other)
		r.c.sever(victim, other, true)
	case k == 3:
		r.note("split %s and %s from the others", victim, other)
		for _, a := range []string{victim, other} {
			for _, b := range r.names {
				if b != victim && b != other {
					r.c.sever(a, b, true)
					r.c.sever(b, a, true)
				}
			}
		}
	case k == 4 && len(r.down()) == 0:
		r.note("restart %s", victim)
		r.c.kill(victim)
		r.c.start(victim, false)
	case k == 5 && len(r.down()) == 0 && (r.wiped == 0 || r.amnesia):
		r.wiped++ // three voters can lose one disk
		r.wipe(victim)
	case k == 6 && r.c.leader() != nil:
		r.note("transfer")
		_ = r.c.leader().Transfer(r.t.Context(), "")
	default:
		r.heal()
	}
}

// wipe takes a node's disk away. It comes back as a new server and joins.
func (r *linRun) wipe(name string) {
	r.note("wipe %s", name)
	n := r.c.nodes[name]
	id, err := ReadServerID(n.dir)
	r.c.kill(name)
	if err == nil {
		err = os.RemoveAll(n.dir)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.c.start(name, false)
	if r.amnesia {
		r.c.kill(name)
		if err := os.WriteFile(filepath.Join(n.dir, idFile), []byte(formatServerID(id)), 0o600); err != nil {
			r.t.Fatal(err)
		}
		r.c.start(name, false)
		return
	}
	_ = r.c.tryJoinFor(name, 20) // later, if there is no quorum now
}

func (r *linRun) heal() {
	r.note("heal")
	r.c.mu.Lock()
	clear(r.c.cut)
	r.c.mu.Unlock()
	for _, n := range r.down() {
		r.c.start(n, false)
	}
	for _, n := range r.names {
		if s := r.c.node(n); s != nil && !r.amnesia {
			_ = r.c.tryJoinFor(n, 20)
		}
	}
}

func TestLinearizable(t *testing.T) {
	runs := 200
	if testing.Short() {
		runs = 5
	}
	if v := os.Getenv("FLUID_LINEAR_RUNS"); v != "" {
		if _, err := fmt.Sscan(v, &runs); err != nil {
			t.Fatal(err)
		}
	}
	for seed := range uint64(runs) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			if ok, plan := runLinear(t, seed, nil, false); !ok || t.Failed() {
				t.Errorf("seed %d is not linearizable; faults: %s", seed, strings.Join(plan, ", "))
			}
		})
	}
}

// TestPlantedBugsAreFound breaks the store on purpose, once per way.
func TestPlantedBugsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("needs many runs")
	}
	for _, tt := range []struct {
		name    string
		plant   func(*Store)
		amnesia bool
	}{
		{"leadership is not verified", func(s *Store) {
			s.verify = func(context.Context) error { return nil }
		}, false},
		{"acknowledged before the commit", func(s *Store) {
			s.committed = func(f raft.ApplyFuture, batch []*proposal) (any, error) {
				var out []outcome
				for _, p := range batch {
					c, err := decodeCommand(p.raw)
					if err != nil {
						return nil, err
					}
					o, _ := s.rehearse(&c)
					out = append(out, o)
				}
				return out, nil
			}
		}, false},
		{"a wiped voter under its old identity", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(300) {
				found := false
				t.Run("", func(t *testing.T) {
					ok, plan := runLinear(t, seed, tt.plant, tt.amnesia)
					if found = !ok; found {
						t.Logf("found with seed %d: %s", seed, strings.Join(plan, ", "))
					}
				})
				if found {
					return
				}
			}
			t.Error("not found")
		})
	}
}
