package mesh_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// replica is the smallest holder of a catalog.
type replica struct {
	mu sync.Mutex
	c  *catalog.Catalog
}

func (r *replica) Update(f func(*catalog.Catalog) catalog.Changes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.c)
}

// node is one member with its catalog and, for an agent, its origin.
type node struct {
	mesh.Mesh
	id string
	replica
	ow    *catalog.Owner
	clone chan record.OriginID
}

// world is the group that one conformance test runs in.
type world interface {
	// configure completes the configuration of a member.
	configure(t *testing.T, cfg *mesh.Config)
	// cut ends communication between two sets of members, until heal.
	cut(a, b []string)
	heal()
	// within is how long news may take, and detection of a death.
	within() (news, death time.Duration)
}

// suite runs the tests that hold for every implementation. run executes a
// test, in fake time where the implementation needs time.
func suite(t *testing.T, run func(t *testing.T, f func(t *testing.T)), newWorld func(t *testing.T) world) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, world)
	}{
		{"spread", testSpread},
		{"late joiner", testLateJoiner},
		{"partition", testPartition},
		{"restart", testRestart},
		{"leave", testLeave},
		{"committed", testCommitted},
		{"forged seal", testForgedSeal},
		{"cluster learned late", testLateCluster},
		{"labels", testLabels},
		{"clone", testClone},
		{"confirm", testConfirm},
		{"applied", testApplied},
		{"closed", testClosed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run(t, func(t *testing.T) { tc.test(t, newWorld(t)) })
		})
	}
}

var clusterKey = ed25519.NewKeyFromSeed(slices.Repeat([]byte{7}, ed25519.SeedSize))

func clusterID() string { return mesh.ClusterID(clusterKey.Public().(ed25519.PublicKey)) }

// start starts a member that joins the given ones.
func start(t *testing.T, w world, id string, role mesh.Role, edit func(*mesh.Config), join ...*node) *node {
	t.Helper()
	n := &node{id: id, clone: make(chan record.OriginID, 16)}
	n.c = catalog.New()
	cfg := mesh.Config{ID: id, Role: role, Replica: n, Cluster: clusterID(), OnClone: func(o record.OriginID) {
		select {
		case n.clone <- o:
		default:
		}
	}}
	if role == mesh.RoleAgent {
		n.own(t, 1)
	}
	w.configure(t, &cfg)
	if edit != nil {
		edit(&cfg)
	}
	m, err := mesh.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Mesh = m
	t.Cleanup(func() { _ = m.Close() })
	if len(join) > 0 {
		var addrs []string
		for _, j := range join {
			addrs = append(addrs, j.Self().Addr)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := m.Join(ctx, addrs); err != nil {
			t.Fatalf("%s joins: %v", id, err)
		}
	}
	return n
}

// own makes the node the writer of its origin and describes it.
func (n *node) own(t *testing.T, epoch uint64, items ...catalog.Item) {
	t.Helper()
	n.Update(func(c *catalog.Catalog) catalog.Changes {
		now := time.Now().UnixMilli()
		ow, _, err := c.Own(now, originOf(n.id), epoch, epoch*7, items)
		if err != nil {
			t.Error(err)
			return catalog.Changes{}
		}
		n.ow = ow
		it, _ := ow.Describe(now, &record.Node{ID: n.id, Name: n.id})
		ow.Commit(now, it)
		return catalog.Changes{}
	})
}

func originOf(id string) record.OriginID {
	var o record.OriginID
	copy(o[:], id+"----------------")
	return o
}

func instance(service, id string) *record.Instance {
	return &record.Instance{Service: service, ID: id, Weight: 1, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.9")}}
}

// register registers an instance at the node and publishes it.
func (n *node) register(t *testing.T, service, id string) catalog.Head {
	t.Helper()
	return n.publish(t, func(now int64) (catalog.Item, error) {
		it, _, err := n.ow.Register(now, instance(service, id))
		return it, err
	})
}

func (n *node) withdraw(t *testing.T, service, id string) catalog.Head {
	t.Helper()
	return n.publish(t, func(now int64) (catalog.Item, error) {
		return n.ow.Withdraw(now, record.InstanceKey(service, id))
	})
}

func (n *node) publish(t *testing.T, draft func(now int64) (catalog.Item, error)) catalog.Head {
	t.Helper()
	var d catalog.Delta
	var head catalog.Head
	n.Update(func(*catalog.Catalog) catalog.Changes {
		now := time.Now().UnixMilli()
		it, err := draft(now)
		if err != nil {
			t.Error(err)
			return catalog.Changes{}
		}
		d, _ = n.ow.Commit(now, it)
		head = n.ow.Head()
		return catalog.Changes{}
	})
	n.Publish(d)
	return head
}

// answers returns the ids that the node answers for a service.
func (n *node) answers(service string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.c.View(service)
	if !ok {
		return nil
	}
	out := []string{}
	for _, in := range v.Instances {
		out = append(out, in.ID)
	}
	return out
}

// eventually waits for a condition.
func eventually(t *testing.T, within time.Duration, what string, cond func() bool) {
	t.Helper()
	if cond() {
		return
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(within)
	for {
		select {
		case <-tick.C:
			if cond() {
				return
			}
		case <-end:
			t.Fatalf("after %v: %s", within, what)
		}
	}
}

func wantAnswers(t *testing.T, w world, service string, want []string, nodes ...*node) {
	t.Helper()
	news, _ := w.within()
	for _, n := range nodes {
		eventually(t, news, fmt.Sprintf("%s answers %v for %s, want %v", n.id, n.answers(service), service, want),
			func() bool { return slices.Equal(n.answers(service), want) })
	}
}

func group(t *testing.T, w world) (a, b, d *node) {
	t.Helper()
	a = start(t, w, "agent-a", mesh.RoleAgent, nil)
	b = start(t, w, "agent-b", mesh.RoleAgent, nil, a)
	d = start(t, w, "dns-1", mesh.RoleDNS, nil, a)
	return a, b, d
}

func testSpread(t *testing.T, w world) {
	a, b, d := group(t, w)
	a.register(t, "web", "a")
	b.register(t, "web", "b")
	wantAnswers(t, w, "web", []string{"a", "b"}, a, b, d)
	a.withdraw(t, "web", "a")
	wantAnswers(t, w, "web", []string{"b"}, a, b, d)
	b.withdraw(t, "web", "b")
	wantAnswers(t, w, "web", []string{}, a, b, d)
	news, _ := w.within()
	eventually(t, news, "three members", func() bool { return len(d.Members()) == 3 })
}

func testLateJoiner(t *testing.T, w world) {
	a := start(t, w, "agent-a", mesh.RoleAgent, nil)
	for i := range 300 {
		a.register(t, "web", fmt.Sprintf("i%03d", i))
	}
	for i := range 299 {
		a.withdraw(t, "web", fmt.Sprintf("i%03d", i))
	}
	b := start(t, w, "dns-1", mesh.RoleDNS, nil, a)
	wantAnswers(t, w, "web", []string{"i299"}, b)
}

func testPartition(t *testing.T, w world) {
	a, b, d := group(t, w)
	a.register(t, "web", "a")
	wantAnswers(t, w, "web", []string{"a"}, a, b, d)
	w.cut([]string{"agent-a"}, []string{"agent-b", "dns-1"})
	a.register(t, "web", "a2")
	b.register(t, "web", "b")
	wantAnswers(t, w, "web", []string{"a", "a2"}, a)
	_, death := w.within()
	eventually(t, death, "dns-1 sees agent-a dead", func() bool { return stateOf(d, "agent-a") == mesh.Dead })
	w.heal()
	eventually(t, 30*time.Second, "dns-1 sees agent-a alive", func() bool { return stateOf(d, "agent-a") == mesh.Alive })
	wantAnswers(t, w, "web", []string{"a", "a2", "b"}, a, b, d)
}

func stateOf(n *node, id string) mesh.State {
	for _, m := range n.Members() {
		if m.ID == id {
			return m.State
		}
	}
	return 0
}

func testRestart(t *testing.T, w world) {
	a, b, d := group(t, w)
	a.register(t, "web", "a")
	wantAnswers(t, w, "web", []string{"a"}, d)
	var held catalog.Item
	a.Update(func(*catalog.Catalog) catalog.Changes { held, _ = a.ow.Instance("web", "a"); return catalog.Changes{} })
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	again := &node{id: "agent-a"}
	again.c = catalog.New()
	again.own(t, 2, held)
	cfg := mesh.Config{ID: "agent-a", Role: mesh.RoleAgent, Replica: again}
	w.configure(t, &cfg)
	m, err := mesh.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	again.Mesh = m
	if _, err := m.Join(t.Context(), []string{b.Self().Addr}); err != nil {
		t.Fatal(err)
	}
	wantAnswers(t, w, "web", []string{"a"}, again, d) // it never left the answer
	again.withdraw(t, "web", "a")
	wantAnswers(t, w, "web", []string{}, again, b, d)
}

func testLeave(t *testing.T, w world) {
	a, b, d := group(t, w)
	a.register(t, "web", "a")
	wantAnswers(t, w, "web", []string{"a"}, b, d)
	if err := a.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantAnswers(t, w, "web", []string{}, b, d)
	if got := stateOf(d, "agent-a"); got != mesh.Left {
		t.Errorf("agent-a is %v, want left", got)
	}
}

func testLabels(t *testing.T, w world) {
	a := start(t, w, "agent-a", mesh.RoleAgent, func(c *mesh.Config) { c.Label = "one" })
	b := start(t, w, "agent-b", mesh.RoleAgent, func(c *mesh.Config) { c.Label = "two" })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if n, err := b.Join(ctx, []string{a.Self().Addr}); err == nil {
		t.Errorf("joined %d members of another label", n)
	}
	a.register(t, "web", "a")
	if got := b.answers("web"); got != nil {
		t.Errorf("another label's %v is answered", got)
	}
	if n := len(b.Members()); n != 1 {
		t.Errorf("%d members known, want 1", n)
	}
}

func testClone(t *testing.T, w world) {
	a, _, d := group(t, w)
	other := catalog.New()
	ow, _, err := other.Own(time.Now().UnixMilli(), originOf("agent-a"), 1<<40, 99, nil)
	if err != nil {
		t.Fatal(err)
	}
	it, _, err := ow.Register(time.Now().UnixMilli(), instance("web", "clone"))
	if err != nil {
		t.Fatal(err)
	}
	delta, _ := ow.Commit(time.Now().UnixMilli(), it)
	d.Publish(delta)
	news, _ := w.within()
	eventually(t, news, "agent-a hears of its clone", func() bool { return len(a.clone) > 0 })
}

func testConfirm(t *testing.T, w world) {
	a, _, _ := group(t, w)
	head := a.register(t, "web", "a")
	news, _ := w.within()
	ctx, cancel := context.WithTimeout(t.Context(), news)
	defer cancel()
	if n, err := a.Confirm(ctx, head, 2); err != nil || n < 2 {
		t.Errorf("confirmed by %d, %v; want 2", n, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if n, err := a.Confirm(short, head, 3); !errors.Is(err, context.DeadlineExceeded) || n != 2 {
		t.Errorf("confirmed by %d, %v; want 2 and a deadline", n, err)
	}
}

func testClosed(t *testing.T, w world) {
	a, b, _ := group(t, w)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := a.Leave(t.Context()); !errors.Is(err, mesh.ErrClosed) {
		t.Errorf("Leave after Close: %v", err)
	}
	a.register(t, "web", "late") // must not panic or arrive
	b.register(t, "web", "b")
	wantAnswers(t, w, "web", []string{"b"}, b)
}
