package fluid

import (
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/record"
)

// origin is an agent's own origin, which the feed relays.
type origin struct {
	a     *agent
	own   *catalog.Catalog
	owner *catalog.Owner
}

func newOrigin(t *testing.T, a *agent) *origin {
	t.Helper()
	g := &origin{a: a, own: catalog.New()}
	var err error
	if g.owner, _, err = g.own.Own(time.Now().UnixMilli(), record.OriginID{7}, 1, 1, nil); err != nil {
		t.Fatal(err)
	}
	return g
}

// Since implements feed.Relay.
func (g *origin) Since(have feed.Vector) (iter.Seq[[]byte], feed.Vector, uint64) {
	g.a.mu.Lock()
	defer g.a.mu.Unlock()
	w := catalog.Want{Origin: g.owner.ID()}
	for _, h := range have {
		if h.Origin == w.Origin {
			w.Epoch, w.Nonce, w.From = h.Epoch, 1, h.Seq
		}
	}
	head := g.owner.Head()
	var frames [][]byte
	for _, d := range g.own.Pull(w, maxPull) {
		frames = append(frames, d.Append(nil))
	}
	return func(yield func([]byte) bool) {
		for _, f := range frames {
			if !yield(f) {
				return
			}
		}
	}, feed.Vector{{Origin: head.Origin, Epoch: head.Epoch, Seq: head.Watermark}}, head.Watermark
}

// Changed implements feed.Relay.
func (g *origin) Changed(version uint64) <-chan struct{} {
	g.a.mu.Lock()
	defer g.a.mu.Unlock()
	if g.owner.Head().Watermark > version {
		done := make(chan struct{})
		close(done)
		return done
	}
	return g.a.changed
}

func (g *origin) commit(items ...catalog.Item) {
	g.a.mu.Lock()
	defer g.a.mu.Unlock()
	g.owner.Commit(time.Now().UnixMilli(), items...)
	close(g.a.changed)
	g.a.changed = make(chan struct{})
}

func (g *origin) register(t *testing.T, text string) {
	t.Helper()
	in, err := parseInstance(text)
	if err != nil {
		t.Fatal(err)
	}
	g.a.mu.Lock()
	it, _, err := g.owner.Register(time.Now().UnixMilli(), &in)
	g.a.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	g.commit(it)
}

// What an agent gossips is answered too, and survives a restart of CoreDNS
// with the agent gone.
func TestRelay(t *testing.T) {
	a := idleAgent(t)
	g := newOrigin(t, a)
	a.relay = g
	a.start()
	a.commit(instance(t, "checkout 10.0.0.9"))
	corefile := strings.Replace(zoneFile, "ttl 7", "ttl 7\n startup_timeout 100ms\n snapshot "+t.TempDir()+"/last.good", 1)
	s := serve(t, corefile, a)
	s.caughtUp()
	answers := func(n int) func() bool {
		return func() bool { return len(s.ask("worker.fluid.internal.", dns.TypeA).Answer) == n }
	}
	g.register(t, "worker 10.3.0.1")
	eventually(t, "one worker", answers(1))
	g.register(t, "worker 10.3.0.2")
	eventually(t, "two workers", answers(2))
	a.mu.Lock()
	it, err := g.owner.Withdraw(time.Now().UnixMilli(), record.InstanceKey("worker", "10.3.0.1"))
	a.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	g.commit(it)
	eventually(t, "one worker left", answers(1))
	s.stop()
	a.stop()
	s = serve(t, corefile, a)
	compare(t, "from disk", lines(s.ask("worker.fluid.internal.", dns.TypeA).Answer), []string{"worker.fluid.internal. 7 in a 10.3.0.2"})
}

func TestWhy(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	overlay := record.Overlay{ID: "o1", Kind: record.OverlayDrain, Service: "web", Instance: "10.0.1.2-8080"}
	a.commit(record.Entry{Key: record.OverlayKey("o1"), Value: string(overlay.Append(nil))})
	s := serve(t, zoneFile, a)
	s.caughtUp()
	m := s.ask("_why.web.fluid.internal.", dns.TypeTXT, edns(4096, false))
	text := strings.Join(lines(m.Answer), "\n")
	for _, want := range []string{
		"state=fresh", "position=1:2", "service=web class=critical", "known=2 answered=1",
		"instance=10.0.1.1-8080 answered=true rule=answered tier=raft index=1",
		"instance=10.0.1.2-8080 answered=false rule=drained tier=raft index=1", "by=o1",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, rr := range m.Answer {
		if rr.Header().Ttl != 0 {
			t.Errorf("%v: TTL %d, want 0", rr, rr.Header().Ttl)
		}
	}
	if m := s.ask("_why.nobody.fluid.internal.", dns.TypeTXT); m.Rcode != dns.RcodeNameError {
		t.Errorf("why nobody: %v, want NXDOMAIN", m)
	}
	if m := s.ask("_why.web.fluid.internal.", dns.TypeA); m.Rcode != 0 || len(m.Answer) != 0 || len(m.Ns) != 1 {
		t.Errorf("address of why: %v, want NODATA", m)
	}
}

// Who is neither the machine itself nor allowed is refused.
func TestWhyAccess(t *testing.T) {
	f, _ := loaded(t, nil)
	q := query{Fluid: f}
	tests := []struct {
		from, allow string
		want        bool
	}{
		{"127.0.0.1", "", true},
		{"::1", "", true},
		{"10.240.0.1", "", false},
		{"10.240.0.1", "10.0.0.0/8", true},
		{"10.240.0.1", "192.0.2.0/24", false},
		{"::ffff:10.240.0.1", "10.0.0.0/8", true},
	}
	for _, tc := range tests {
		q.block.why = nil
		if tc.allow != "" {
			var err error
			if q.block.why, err = prefixes([]string{tc.allow}); err != nil {
				t.Fatal(err)
			}
		}
		q.state.W = from(tc.from)
		q.state.Clear()
		if got := q.mayAsk(); got != tc.want {
			t.Errorf("from %s with why %q: %v, want %v", tc.from, tc.allow, got, tc.want)
		}
	}
}
