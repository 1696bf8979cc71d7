package fluid

import (
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/acl"
	_ "github.com/coredns/coredns/plugin/any"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/bufsize"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/minimal"
	_ "github.com/coredns/coredns/plugin/multisocket"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/transfer"
	_ "github.com/coredns/coredns/plugin/view"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/record"
)

func TestMain(m *testing.M) {
	i := slices.Index(dnsserver.Directives, "k8s_external")
	order := slices.Insert(slices.Clone(dnsserver.Directives), i, "fluid")
	order = append(order, "testhook")
	if err := dnsserver.SetDirectives(order); err != nil {
		panic(err)
	}
	caddy.Quiet, dnsserver.Quiet = true, true
	if os.Getenv("FLUID_TEST_LOG") == "" {
		stdlog.SetOutput(io.Discard)
		clog.SetOutput(io.Discard)
	}
	_ = os.Setenv("FLUID_SOCKET", "/nonexistent/fluid-test.sock")
	goleak.VerifyTestMain(m,
		// Timers of CoreDNS's own plugins that end by themselves.
		goleak.IgnoreTopFunction("github.com/coredns/coredns/plugin/pkg/uniq.U.ForEach"),
		// Ends with the garbage collection of a proxy of forward's.
		goleak.IgnoreTopFunction("github.com/coredns/coredns/plugin/pkg/proxy.(*Transport).connManager"))
}

// agent is an agent as far as the feed is concerned: a catalog that is served
// on a socket.
type agent struct {
	t      testing.TB
	socket string
	server *feed.Server

	mu      sync.Mutex // guards what follows
	cat     *catalog.Catalog
	changed chan struct{}
	cluster string
	relay   feed.Relay
	impl    string // of gossip
}

func newAgent(t testing.TB) *agent {
	t.Helper()
	a := idleAgent(t)
	a.start()
	return a
}

// idleAgent returns an agent that does not listen yet.
func idleAgent(t testing.TB) *agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "fluid") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a := &agent{t: t, socket: filepath.Join(dir, "a", "agent.sock"), cat: catalog.New(), changed: make(chan struct{}), cluster: "c1"}
	t.Cleanup(a.stop)
	return a
}

func (a *agent) start() {
	a.t.Helper()
	server, err := feed.NewServer(feed.ServerConfig{
		Source: source{a}, Relay: a.relay, Implementation: a.impl, Logger: slog.New(slog.DiscardHandler), Heartbeat: 50 * time.Millisecond,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	l, err := feed.Listen(a.socket, -1)
	if err != nil {
		a.t.Fatal(err)
	}
	a.server = server
	go func() {
		if err := server.Serve(l); err != nil {
			a.t.Error(err)
		}
	}()
}

func (a *agent) stop() {
	if a.server != nil {
		a.server.Stop()
		a.server = nil
	}
}

// source adapts an agent to the feed.
type source struct{ a *agent }

func (s source) State() feed.State {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	// A copy: the state handed out must not change.
	c := catalog.New()
	if !s.a.cat.Position().IsZero() {
		if _, err := c.Replace(s.a.cat.Position(), s.a.cat.Entries()); err != nil {
			panic(err)
		}
	}
	return &frozen{Catalog: c, since: s.a, cluster: s.a.cluster}
}

type frozen struct {
	*catalog.Catalog
	since   *agent
	cluster string
}

func (f *frozen) ClusterID() string { return f.cluster }

func (f *frozen) Since(pos record.Position) ([]record.Entry, bool) {
	f.since.mu.Lock()
	defer f.since.mu.Unlock()
	if f.since.cat.Position() != f.Position() {
		return nil, false
	}
	return f.since.cat.Since(pos)
}

func (s source) Changed(after record.Position) <-chan struct{} {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	if after.Before(s.a.cat.Position()) {
		done := make(chan struct{})
		close(done)
		return done
	}
	return s.a.changed
}

func (s source) Status() feed.Status {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	return feed.Status{Commit: s.a.cat.Position(), LeaderKnown: true}
}

// commit applies entries at the next position.
func (a *agent) commit(entries ...record.Entry) record.Position {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	prev := a.cat.Position()
	pos := record.Position{Generation: 1, Index: prev.Index + 1}
	for i := range entries {
		entries[i].Index = pos.Index
	}
	var err error
	if prev.IsZero() {
		_, err = a.cat.Replace(pos, slices.Values(entries))
	} else {
		_, err = a.cat.Apply(prev, pos, entries)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	close(a.changed)
	a.changed = make(chan struct{})
	return pos
}

func removed(e record.Entry) record.Entry { return record.Entry{Key: e.Key, Deleted: true} }

// serve starts CoreDNS with a Corefile, in which PORT is a free port and AGENT
// the agent's socket, and stops it at the end of the test.
func serve(t testing.TB, corefile string, a *agent) *server {
	t.Helper()
	s := &server{t: t, agent: a}
	inst, err := caddy.Start(s.input(corefile))
	if err != nil {
		t.Fatal(err)
	}
	s.inst = inst
	s.find()
	t.Cleanup(s.stop)
	s.serving()
	return s
}

// server is a running CoreDNS.
type server struct {
	t     testing.TB
	agent *agent
	inst  *caddy.Instance
	addr  string // UDP
	tcp   string
}

func (s *server) input(corefile string) caddy.Input {
	if s.agent != nil {
		corefile = strings.ReplaceAll(corefile, "AGENT", s.agent.socket)
	}
	return caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(strings.ReplaceAll(corefile, "PORT", "0")), ServerTypeName: "dns"}
}

func (s *server) find() {
	for _, l := range s.inst.Servers() {
		if a := l.LocalAddr(); a != nil {
			s.addr = a.String()
			s.tcp = l.Addr().String()
		}
	}
}

func (s *server) reload(corefile string) error {
	next, err := s.inst.Restart(s.input(corefile))
	if next != nil {
		s.inst = next
	}
	s.serving()
	return err
}

// serving waits for replies. CoreDNS cannot stop a server that has not begun
// to serve yet; one that is reloaded at once would go on for ever.
func (s *server) serving() {
	for _, l := range s.inst.Servers() {
		for network, addr := range map[string]net.Addr{"udp": l.LocalAddr(), "tcp": l.Addr()} {
			if addr == nil {
				continue
			}
			eventually(s.t, "reply over "+network, func() bool {
				_, err := exchange(addr.String(), network, "fluid.internal.", dns.TypeSOA)
				return err == nil
			})
		}
	}
}

func (s *server) stop() {
	if s.inst == nil {
		return
	}
	for _, err := range s.inst.ShutdownCallbacks() {
		s.t.Error(err)
	}
	if err := s.inst.Stop(); err != nil {
		s.t.Error(err)
	}
	s.inst = nil
}

// ask sends one query over UDP and returns the reply.
func (s *server) ask(name string, typ uint16, opts ...func(*dns.Msg)) *dns.Msg {
	s.t.Helper()
	m, err := exchange(s.addr, "udp", name, typ, opts...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", name, dns.TypeToString[typ], err)
	}
	return m
}

func exchange(addr, network, name string, typ uint16, opts ...func(*dns.Msg)) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, typ)
	for _, o := range opts {
		o(q)
	}
	c := dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: dns.MaxMsgSize}
	m, _, err := c.Exchange(q, addr)
	return m, err
}

func edns(size uint16, do bool) func(*dns.Msg) {
	return func(m *dns.Msg) { m.SetEdns0(size, do) }
}

// eventually waits until f reports true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-tick.C
	}
}

// caughtUp waits until the engine has applied what the agent has committed.
func (s *server) caughtUp() {
	s.t.Helper()
	s.agent.mu.Lock()
	want := s.agent.cat.Position()
	s.agent.mu.Unlock()
	eventually(s.t, "engine at "+want.String(), func() bool { return position() == want })
}

func position() record.Position {
	e := leases.running()
	if e == nil {
		return record.Position{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.catalog.Position()
}

// lines renders a section as sorted lines.
func lines(rrs []dns.RR) []string {
	out := []string{}
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, strings.Join(strings.Fields(strings.ToLower(rr.String())), " "))
		}
	}
	slices.Sort(out)
	return out
}

func ede(m *dns.Msg) *dns.EDNS0_EDE {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				return e
			}
		}
	}
	return nil
}
