package fluid

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/mesh/memnet"
	"github.com/fluid-sd/fluid/plugin/record"
)

// island is a network in fake time with agents on it and one DNS server.
type island struct {
	t      *testing.T
	net    *memnet.Network
	key    *other // holds the cluster's key
	epochs map[byte]uint64
	fluid  *Fluid
	engine *engine
}

// onIsland runs a test in fake time, and lets what memberlist leaves running
// after its end come to one.
func onIsland(t *testing.T, test func(*island)) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { <-time.After(time.Minute) })
		is := &island{t: t, net: memnet.New(1), epochs: map[byte]uint64{}}
		is.net.SetDelay(300*time.Microsecond, 2*time.Millisecond)
		is.key = is.agent(100)
		is.key.commit(instance(t, "committed 10.9.9.9"))
		is.dns()
		is.until(30*time.Second, "the committed instance", func() bool { return len(is.ask("committed").ips) == 1 })
		test(is)
	})
}

func addrOf(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }

// agent starts the agent of a host, which vouches for some instances. The DNS
// members are those at its socket.
func (is *island) agent(n byte, instances ...string) *other {
	return is.agentWith(n, nil, instances...)
}

func (is *island) agentWith(n byte, dnsMembers []string, instances ...string) *other {
	is.t.Helper()
	o := &other{t: is.t, cat: catalog.New(), seen: map[string][]mesh.State{}}
	if is.key != nil {
		o.cluster, o.key = is.key.cluster, is.key.key
	} else {
		pub, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			is.t.Fatal(err)
		}
		o.cluster, o.key = mesh.ClusterID(pub), key
	}
	now := time.Now().UnixMilli()
	is.epochs[n]++
	var err error
	if o.owner, _, err = o.cat.Own(now, record.OriginID{n}, is.epochs[n], 1, nil); err != nil {
		is.t.Fatal(err)
	}
	header, _ := o.owner.Describe(now, &record.Node{ID: fmt.Sprintf("agent-%d", n), Name: fmt.Sprintf("host%d", n), Members: dnsMembers})
	o.owner.Commit(now, header)
	if o.Mesh, err = mesh.New(mesh.Config{
		Impl: mesh.CRDT, ID: fmt.Sprintf("agent-%d", n), Role: mesh.RoleAgent, Replica: o, Cluster: o.cluster,
		Network: is.net.Host(addrOf(n)), Bind: netip.AddrPortFrom(addrOf(n), 7946).String(), Insecure: true,
		Seeds: []string{"10.0.0.100:7946"},
	}); err != nil {
		is.t.Fatal(err)
	}
	is.t.Cleanup(func() { _ = o.Close() })
	if n != 100 {
		if _, err := o.Join(is.t.Context(), []string{"10.0.0.100:7946"}); err != nil {
			is.t.Fatal(err)
		}
	}
	for _, in := range instances {
		o.register(in)
	}
	return o
}

// dns starts the DNS server, whose member is dns-1.
func (is *island) dns() {
	is.t.Helper()
	c := newTestController(is.t)
	b, given, err := parse(c)
	if err != nil {
		is.t.Fatal(err)
	}
	p := given.process()
	p.Agent, p.Gossip, p.GossipNode, p.GossipInsecure = "/nonexistent/agent.sock", gossipCRDT, "dns", true
	p.GossipAddress, p.GossipSeeds, p.Cluster = "10.0.0.200:7947", []string{"10.0.0.100:7946"}, is.key.cluster
	p.network = is.net.Host(addrOf(200))
	e := newEngine(p)
	e.head.Member = "dns-1"
	e.configure(p, []*block{b})
	if err := e.run(); err != nil {
		is.t.Fatal(err)
	}
	is.t.Cleanup(e.close)
	is.fluid, is.engine = &Fluid{shared: &shared{block: b}}, e
	is.fluid.engine.Store(e)
}

// seen is what a client gets to see of an answer.
type seen struct {
	ips []string
	ede string
}

// ask asks for the addresses of a service.
func (is *island) ask(service string) (got seen) {
	is.t.Helper()
	w := dnstest.NewRecorder(&test.ResponseWriter{})
	if _, err := is.fluid.ServeDNS(is.t.Context(), w, queryFor(service+".example.org.", dns.TypeA, 1232)); err != nil {
		is.t.Fatal(err)
	}
	for _, rr := range w.Msg.Answer {
		if a, ok := rr.(*dns.A); ok {
			got.ips = append(got.ips, a.A.String())
		}
	}
	slices.Sort(got.ips)
	if opt := w.Msg.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok {
				got.ede = fmt.Sprintf("%d %s", ede.InfoCode, ede.ExtraText)
			}
		}
	}
	return got
}

// until waits for a condition.
func (is *island) until(limit time.Duration, what string, ok func() bool) {
	is.t.Helper()
	for end := time.Now().Add(limit); !ok(); <-time.After(100 * time.Millisecond) {
		if time.Now().After(end) {
			is.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// want waits until a service has an answer.
func (is *island) want(limit time.Duration, service string, ips ...string) {
	is.t.Helper()
	is.until(limit, fmt.Sprintf("%s is answered with %v, not %v", service, ips, is.ask(service)), func() bool {
		return slices.Equal(is.ask(service).ips, ips)
	})
}

// throughout fails the test if a service has another answer at any time.
func (is *island) throughout(span time.Duration, service string, ips ...string) {
	is.t.Helper()
	for end := time.Now().Add(span); time.Now().Before(end); <-time.After(time.Second) {
		if got := is.ask(service); !slices.Equal(got.ips, ips) {
			is.t.Fatalf("%v before the end %s is answered with %v, want %v", time.Until(end), service, got.ips, ips)
		}
	}
}

func (is *island) guarded() int {
	is.engine.mu.Lock()
	defer is.engine.mu.Unlock()
	return len(is.engine.guarded)
}

// The death of one host of many takes its instances out of the answer, after
// detection and the hold-down. The death of most at once takes none: they stay,
// marked as stale, until they return, an operator ends it or 15 minutes pass.
func TestGuard(t *testing.T) {
	if testing.Short() {
		t.Skip("half an hour of fake time is much for the race detector")
	}
	onIsland(t, func(is *island) {
		hosts := map[byte]*other{}
		for n := byte(1); n <= 4; n++ {
			hosts[n] = is.agent(n, fmt.Sprintf("web 10.1.0.%d", n))
		}
		is.want(10*time.Second, "web", "10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4")
		died := time.Now()
		_ = hosts[4].Close()
		is.throughout(30*time.Second, "web", "10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4")
		is.want(time.Minute, "web", "10.1.0.1", "10.1.0.2", "10.1.0.3")
		t.Logf("one host of four is out of the answer %v after its death", time.Since(died).Round(time.Second))
		if got := is.ask("web"); got.ede != "" || is.guarded() != 0 {
			t.Errorf("one of four is no reason for the guard: %+v", got)
		}

		<-time.After(2 * time.Minute) // the losses count apart
		for n := byte(2); n <= 3; n++ {
			_ = hosts[n].Close()
		}
		is.until(2*time.Minute, "the guard", func() bool { return is.guarded() == 1 })
		if got := is.ask("web"); !strings.HasPrefix(got.ede, "3 most instances were lost at once") || !slices.Equal(got.ips, []string{"10.1.0.1", "10.1.0.2", "10.1.0.3"}) {
			t.Errorf("guarded: %+v", got)
		}
		if got := is.ask("committed"); got.ede != "" {
			t.Errorf("another service: %+v", got)
		}
		is.throughout(2*time.Minute, "web", "10.1.0.1", "10.1.0.2", "10.1.0.3")

		// One returns for good, and then removes its instance: that counts at once.
		hosts[2] = is.agent(2, "web 10.1.0.2")
		<-time.After(time.Minute)
		now := time.Now().UnixMilli()
		hosts[2].mu.Lock()
		it, err := hosts[2].owner.Withdraw(now, record.InstanceKey("web", "10.1.0.2"))
		d, _ := hosts[2].owner.Commit(now, it)
		hosts[2].mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		hosts[2].Publish(d)
		is.want(5*time.Second, "web", "10.1.0.1", "10.1.0.3")
		is.want(15*time.Minute, "web", "10.1.0.1")
		is.until(5*time.Second, "the guard at its end", func() bool { return is.guarded() == 0 })
		if got := is.ask("web"); got.ede != "" {
			t.Errorf("after the guard: %+v", got)
		}
	})
}

// A host that leaves is not lost: what it vouched for goes at once, be it all
// there is.
func TestGuardAfterLeave(t *testing.T) {
	onIsland(t, func(is *island) {
		one := is.agent(1, "web 10.1.0.1", "web 10.1.0.2", "web 10.1.0.3")
		is.want(10*time.Second, "web", "10.1.0.1", "10.1.0.2", "10.1.0.3")
		if err := one.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		is.want(5*time.Second, "web")
		if is.guarded() != 0 {
			t.Error("the guard keeps what was withdrawn")
		}
	})
}

// A host whose agent died and whose DNS server lives is unattended: nothing
// happens for ten minutes, then it is answered for only where nobody else is.
func TestUnattended(t *testing.T) {
	if testing.Short() {
		t.Skip("half an hour of fake time is much for the race detector")
	}
	onIsland(t, func(is *island) {
		is.agent(1, "both 10.1.0.1")
		two := is.agentWith(2, []string{"dns-1"}, "both 10.1.0.2", "alone 10.1.0.2")
		is.want(10*time.Second, "both", "10.1.0.1", "10.1.0.2")
		is.want(10*time.Second, "alone", "10.1.0.2")
		_ = two.Close()
		is.throughout(9*time.Minute+50*time.Second, "both", "10.1.0.1", "10.1.0.2")
		is.want(time.Minute, "both", "10.1.0.1")
		if got := is.ask("alone"); !slices.Equal(got.ips, []string{"10.1.0.2"}) || got.ede != "3 the agents of all instances are unreachable" {
			t.Errorf("where nobody else is: %+v", got)
		}
		is.throughout(2*time.Minute, "alone", "10.1.0.2")
		is.agentWith(2, []string{"dns-1"}, "both 10.1.0.2", "alone 10.1.0.2")
		is.want(10*time.Second, "both", "10.1.0.1", "10.1.0.2")
		if got := is.ask("alone"); got.ede != "" {
			t.Errorf("after the agent's return: %+v", got)
		}
	})
}
