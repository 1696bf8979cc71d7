package fluid

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// other is another member of the mesh: an agent of a cluster, with an origin of
// its own.
type other struct {
	mesh.Mesh
	t       testing.TB
	cluster string
	key     ed25519.PrivateKey
	owner   *catalog.Owner

	mu   sync.Mutex // guards what follows
	cat  *catalog.Catalog
	seen map[string][]mesh.State // of each member, in order
}

// Update implements mesh.Replica.
func (o *other) Update(f func(*catalog.Catalog) catalog.Changes) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f(o.cat)
}

func newOther(t testing.TB, edit func(*mesh.Config)) *other {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	o := &other{t: t, key: key, cluster: mesh.ClusterID(pub), cat: catalog.New(), seen: map[string][]mesh.State{}}
	if o.owner, _, err = o.cat.Own(time.Now().UnixMilli(), record.OriginID{9}, 1, 1, nil); err != nil {
		t.Fatal(err)
	}
	cfg := mesh.Config{
		Impl: mesh.CRDT, ID: "agent-other", Role: mesh.RoleAgent, Replica: o, Cluster: o.cluster, Bind: "127.0.0.1:0",
		OnMember: func(m mesh.Member) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.seen[m.Name] = append(o.seen[m.Name], m.State)
		},
	}
	if edit != nil {
		edit(&cfg)
	}
	if o.Mesh, err = mesh.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func (o *other) addr() string { return o.Self().Addr }

// commit makes entries part of the cluster's state, under its seal.
func (o *other) commit(entries ...record.Entry) record.Position {
	o.t.Helper()
	o.mu.Lock()
	prev := o.cat.Position()
	pos := record.Position{Generation: 1, Index: prev.Index + 1}
	for i := range entries {
		entries[i].Index = pos.Index
	}
	var err error
	if prev.IsZero() {
		_, err = o.cat.Replace(pos, func(yield func(record.Entry) bool) {
			for _, e := range entries {
				if !yield(e) {
					return
				}
			}
		})
	} else {
		_, err = o.cat.Apply(prev, pos, entries)
	}
	batches := o.cat.Batches(prev, mesh.MakeSeal(o.key, pos, o.cat.Hash()))
	o.mu.Unlock()
	if err != nil {
		o.t.Fatal(err)
	}
	o.Commit(batches[0])
	return pos
}

// register claims an ephemeral instance.
func (o *other) register(text string) {
	o.t.Helper()
	in, err := parseInstance(text)
	if err != nil {
		o.t.Fatal(err)
	}
	now := time.Now().UnixMilli()
	o.mu.Lock()
	it, _, err := o.owner.Register(now, &in)
	var d catalog.Delta
	if err == nil {
		d, _ = o.owner.Commit(now, it)
	}
	o.mu.Unlock()
	if err != nil {
		o.t.Fatal(err)
	}
	o.Publish(d)
}

// states returns what became of a member, by name.
func (o *other) states(name string) []mesh.State {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]mesh.State(nil), o.seen[name]...)
}

func (o *other) options(more string) string {
	return "cluster " + o.cluster + "\n gossip crdt 127.0.0.1:0\n gossip_node n1\n gossip_seeds " + o.addr() + "\n " + more
}

func answers(s *server, name string, want ...string) bool {
	m := s.ask(name, dns.TypeA)
	got := map[string]bool{}
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			got[a.A.String()] = true
		}
	}
	for _, w := range want {
		if !got[w] {
			return false
		}
	}
	return m.Rcode == dns.RcodeSuccess && len(got) == len(want)
}

// A CoreDNS without an agent beside it has committed state and what agents
// vouch for, from the mesh.
func TestMember(t *testing.T) {
	for _, impl := range []string{gossipCRDT, gossipMemberlist} {
		t.Run(impl, func(t *testing.T) {
			o := newOther(t, func(c *mesh.Config) { c.Impl = mesh.Impl(impl) })
			o.commit(instance(t, "checkout 10.0.0.9"))
			o.register("web 10.0.0.20")
			a := idleAgent(t)
			s := serve(t, corefile(strings.Replace(o.options(""), "crdt", impl, 1), ""), a)
			eventually(t, "the committed instance", func() bool { return answers(s, "checkout.fluid.internal.", "10.0.0.9") })
			eventually(t, "the ephemeral instance", func() bool { return answers(s, "web.fluid.internal.", "10.0.0.20") })
			_, e := held()
			if got := e.state.Load(); got != fresh {
				t.Errorf("state %s, want fresh", stateNames[got])
			}
			want := o.commit(instance(t, "checkout 10.0.0.10"))
			eventually(t, "a later commit", func() bool { return answers(s, "checkout.fluid.internal.", "10.0.0.9", "10.0.0.10") })
			if got := position(); got != want {
				t.Errorf("position %v, want %v", got, want)
			}
			if got := samples(t)["coredns_fluid_mesh_members{state=alive}"]; got != 2 {
				t.Errorf("%v members are counted as alive, want 2", got)
			}
		})
	}
}

// Nothing that can happen to a Corefile makes the member leave, except that the
// plugin is gone from it, or CoreDNS ends.
func TestMemberReloads(t *testing.T) {
	o := newOther(t, nil)
	o.commit(instance(t, "checkout 10.0.0.9"))
	a := idleAgent(t)
	same := o.options("")
	s := serve(t, corefile(same, ""), a)
	eventually(t, "the instance", func() bool { return answers(s, "checkout.fluid.internal.", "10.0.0.9") })
	_, e := held()
	started := e.member.Self().Addr
	for _, step := range []struct{ name, corefile, fails string }{
		{"same again", corefile(same, ""), ""},
		{"other ttl", corefile(o.options("ttl 9"), ""), ""},
		{"syntax error", "fluid.internal:PORT {\n fluid {\n", "Unexpected EOF"},
		{"later plugin fails in setup", corefile(same, "testhook setup-error"), "asked for"},
		{"later plugin fails in startup", corefile(same, "testhook startup-error"), "asked for"},
		{"other implementation", corefile(strings.Replace(same, "crdt", "memberlist", 1), ""), "gossip cannot change"},
		{"other label", corefile(o.options("gossip_label x"), ""), "gossip_label cannot change"},
		{"compressed", corefile(o.options("gossip_compression"), ""), "gossip_compression cannot change"},
		{"encrypted", corefile(o.options("gossip_key "+keyFile(t, 0o600, strings.Repeat("0", 32))), ""), "gossip_key cannot change"},
		{"other seeds", corefile(strings.Replace(same, "gossip_seeds", "gossip_seeds 127.0.0.1:1", 1), ""), ""},
		{"no gossip", corefile("", ""), "gossip and gossip_node cannot change"},
		{"two sockets", corefile(same, "multisocket 2"), ""},
		{"plugin that will fail in shutdown", corefile(same, "testhook shutdown-error"), ""},
		{"it fails in shutdown", corefile(same, ""), "asked for"},
	} {
		t.Run(step.name, func(t *testing.T) {
			err := s.reload(step.corefile)
			if step.fails == "" && err != nil {
				t.Fatal(err)
			}
			if step.fails != "" && (err == nil || !strings.Contains(err.Error(), step.fails)) {
				t.Fatalf("error %v, want one with %q", err, step.fails)
			}
			if step.name == "it fails in shutdown" {
				s.inst = caddy.Instances()[0] // Restart returned the instance that it stopped
			}
			leases.reclaim()
			if _, now := held(); now != e || now.member.Self().Addr != started {
				t.Error("another member runs")
			}
		})
	}
	o.commit(instance(t, "checkout 10.0.0.10"))
	eventually(t, "a commit after all that", func() bool { return answers(s, "checkout.fluid.internal.", "10.0.0.9", "10.0.0.10") })
	if got := fmt.Sprint(o.states("n1")); got != "[alive]" {
		t.Errorf("the other member saw %s, want [alive]", got)
	}
	begun := time.Now()
	s.stop()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
	eventually(t, "the farewell", func() bool { return fmt.Sprint(o.states("n1")) == "[alive left]" })
	l, err := net.Listen("tcp", started)
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	_ = l.Close()
}

// A mesh that cannot start is an error of the start, and names the option.
func TestMemberPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	a := idleAgent(t)
	s := &server{t: t, agent: a}
	_, err = caddy.Start(s.input(corefile("gossip crdt "+l.Addr().String(), "")))
	if err == nil || !strings.Contains(err.Error(), "gossip crdt "+l.Addr().String()) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("error %v, want one with the option and that the address is in use", err)
	}
	if _, e := held(); e != nil {
		t.Error("an engine is left")
	}
}

// Feed and mesh fill one slot. Whoever is behind changes nothing, and what
// overlaps is taken from where the slot is. The cluster's id comes over the
// feed, and the snapshot follows both.
func TestMemberAndFeed(t *testing.T) {
	o := newOther(t, nil)
	a := idleAgent(t)
	a.cluster, a.impl = o.cluster, gossipCRDT
	a.start()
	both := func(e record.Entry) {
		o.commit(e)
		a.commit(e)
	}
	path := t.TempDir() + "/last.good"
	options := strings.Replace(o.options("snapshot "+path), "cluster "+o.cluster, "", 1)
	both(instance(t, "checkout 10.0.0.1"))
	s := serve(t, corefile(options, ""), a)
	s.caughtUp()
	want := []string{"10.0.0.1"}
	for i := range 20 {
		ip := fmt.Sprintf("10.0.0.%d", i+2)
		entry := instance(t, "checkout "+ip)
		want = append(want, ip)
		switch i % 3 {
		case 0:
			both(entry)
		case 1: // only the mesh has it for a while
			o.commit(entry)
			eventually(t, "by the mesh", func() bool { return answers(s, "checkout.fluid.internal.", want...) })
			a.commit(entry)
		case 2: // only the feed
			a.commit(entry)
			eventually(t, "by the feed", func() bool { return answers(s, "checkout.fluid.internal.", want...) })
			o.commit(entry)
		}
		eventually(t, "the instance", func() bool { return answers(s, "checkout.fluid.internal.", want...) })
	}
	o.register("web 10.0.0.77")
	eventually(t, "the ephemeral instance", func() bool { return answers(s, "web.fluid.internal.", "10.0.0.77") })
	s.caughtUp()
	_, e := held()
	if st := e.client.Stats(); st.Connects != 1 || st.Snapshots != 1 || st.Relayed != 0 {
		t.Errorf("feed %+v: want one session, one snapshot and no relay", st)
	}
	members, _ := a.server.Members()
	if len(members) != 1 || members[0].ID != e.member.Self().ID || members[0].Relay {
		t.Errorf("members of the feed %+v, want one with id %s and no relay", members, e.member.Self().ID)
	}
	eventually(t, "the position to be acknowledged", func() bool {
		members, _ := a.server.Members()
		return members[0].Applied == position()
	})
	s.stop()
	// With nobody there, everything is as it was.
	a.stop()
	_ = o.Close()
	s = serve(t, strings.Replace(corefile(options, ""), "startup_timeout 5s", "startup_timeout 0s", 1), a)
	if !answers(s, "checkout.fluid.internal.", want...) || !answers(s, "web.fluid.internal.", "10.0.0.77") {
		t.Error("the snapshot lacks something")
	}
	if _, e := held(); e.state.Load() != stale {
		t.Error("what was read from disk counts as fresh")
	}
}

// Of an agent whose records came from the snapshot nothing is known before
// anybody was met; after that, whom nobody knows is dead.
func TestMemberPresumes(t *testing.T) {
	e := newEngine(process{GossipNode: "n1"})
	t.Cleanup(e.close)
	now := time.Now()
	e.wall = func() time.Time { return now }
	m := &member{e: e, presumed: map[string]catalog.MemberStatus{}}
	gone := catalog.New()
	owner, _, err := gone.Own(now.UnixMilli(), record.OriginID{8}, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	in, err := parseInstance("web 10.0.0.8")
	if err != nil {
		t.Fatal(err)
	}
	header, _ := owner.Describe(now.UnixMilli(), &record.Node{ID: "agent-gone", Name: "gone"})
	item, _, err := owner.Register(now.UnixMilli(), &in)
	if err != nil {
		t.Fatal(err)
	}
	owner.Commit(now.UnixMilli(), header, item)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range gone.Pull(catalog.Want{Origin: owner.ID()}, maxPull) {
		e.merge(d.Append(nil))
	}
	after := func(d time.Duration) int {
		m.presume(nil)
		now = now.Add(d)
		e.publish(e.catalog.Advance(now.UnixMilli()))
		if s := e.Service("web"); s != nil {
			return len(s.Instances)
		}
		return 0
	}
	if got := after(time.Hour); got != 1 {
		t.Errorf("alone for an hour: %d instances, want 1", got)
	}
	m.joined = true
	if got := after(29 * time.Second); got != 1 {
		t.Errorf("29 s after the first company: %d instances, want 1", got)
	}
	if got := after(2 * time.Second); got != 0 {
		t.Errorf("31 s after the first company: %d instances, want none", got)
	}
	m.presume([]mesh.Member{{ID: "agent-gone", State: mesh.Alive}})
	if len(m.presumed) != 0 {
		t.Error("an agent that was met is still presumed dead")
	}
}

// Whoever begins to answer from the feed waits a moment for the mesh: what an
// agent vouches for would be denied else.
func TestMemberNoWrongDenial(t *testing.T) {
	o := newOther(t, nil)
	o.commit(instance(t, "checkout 10.0.0.9"))
	a := idleAgent(t)
	a.cluster, a.impl = o.cluster, gossipCRDT
	a.start()
	a.commit(instance(t, "checkout 10.0.0.9"))
	for i := range 200 {
		o.register(fmt.Sprintf("web%d 10.0.1.%d", i, i))
	}
	s := serve(t, corefile(o.options(""), ""), a)
	if m := s.ask("checkout.fluid.internal.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("committed: %v", m)
	}
	for i := range 200 {
		if m := s.ask(fmt.Sprintf("web%d.fluid.internal.", i), dns.TypeA); len(m.Answer) != 1 {
			t.Fatalf("ephemeral: %v", m)
		}
	}
}
