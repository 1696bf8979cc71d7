package fluid

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"
)

// testhook is a plugin that comes after fluid and goes wrong as asked.
func init() {
	plugin.Register("testhook", func(c *caddy.Controller) error {
		for c.Next() {
			for _, arg := range c.RemainingArgs() {
				switch arg {
				case "setup-error":
					return errors.New("asked for")
				case "setup-panic":
					panic("asked for")
				case "startup-error":
					c.OnStartup(func() error { return errors.New("asked for") })
				case "shutdown-error":
					c.OnShutdown(func() error { return errors.New("asked for") })
				}
			}
		}
		return nil
	})
}

// probe asks all the time, and remembers every query that was not answered as
// it should be.
type probe struct {
	mu     sync.Mutex // guards what follows
	asked  int
	faults []string
	stop   chan struct{}
	done   sync.WaitGroup
}

func startProbe(s *server) *probe {
	p := &probe{stop: make(chan struct{})}
	for network, addr := range map[string]string{"udp": s.addr, "tcp": s.tcp} {
		p.done.Go(func() {
			for {
				select {
				case <-p.stop:
					return
				case <-time.After(time.Millisecond):
				}
				m, err := exchange(addr, network, "checkout.fluid.internal.", dns.TypeA)
				if network == "tcp" && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
					// A server that stops closes connections it has not read a
					// query from; clients ask again (RFC 7766 section 6.2.4).
					m, err = exchange(addr, network, "checkout.fluid.internal.", dns.TypeA)
				}
				p.mu.Lock()
				p.asked++
				if err != nil {
					p.faults = append(p.faults, network+": "+err.Error())
				} else if m.Rcode != 0 || len(m.Answer) != 1 {
					p.faults = append(p.faults, fmt.Sprintf("%s: %v", network, m))
				}
				p.mu.Unlock()
			}
		})
	}
	return p
}

func (p *probe) end(t *testing.T) {
	t.Helper()
	close(p.stop)
	p.done.Wait()
	if len(p.faults) > 0 {
		t.Errorf("%d of %d queries went wrong, first: %s", len(p.faults), p.asked, p.faults[0])
	}
	if p.asked < 10 {
		t.Errorf("only %d queries asked", p.asked)
	}
}

func (p *probe) more(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	want := p.asked + 20
	p.mu.Unlock()
	eventually(t, "20 queries more", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.asked >= want
	})
}

// corefile returns a block for fluid.internal with more options and plugins.
func corefile(options, plugins string) string {
	return "fluid.internal:PORT {\n bind 127.0.0.1\n fluid {\n agent AGENT\n startup_timeout 5s\n " + options + "\n }\n " + plugins + "\n}\n"
}

// held returns how many leases there are, and the engine.
func held() (int, *engine) {
	leases.mu.Lock()
	defer leases.mu.Unlock()
	return len(leases.held), leases.engine
}

// TestReloads goes through everything that can happen to a Corefile, with one
// engine and one session of the feed all the way, and no query lost.
func TestReloads(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, corefile("", ""), a)
	s.caughtUp()
	_, e := held()
	p := startProbe(s)
	defer p.end(t)
	steps := []struct {
		name, corefile, fails string
	}{
		{"same again", corefile("", ""), ""},
		{"other ttl", corefile("ttl 9", ""), ""},
		{"syntax error", "fluid.internal:PORT {\n fluid {\n", "Unexpected EOF"},
		{"unknown option", corefile("nonsense", ""), "unknown property"},
		{"option out of range", corefile("ttl 99999", ""), "not a number"},
		{"later plugin fails in setup", corefile("ttl 1", "testhook setup-error"), "asked for"},
		{"later plugin fails in startup", corefile("ttl 1", "testhook startup-error"), "asked for"},
		{"two blocks", corefile("ttl 9", "") + "other.internal:PORT {\n bind 127.0.0.1\n fluid\n}\n", ""},
		{"two blocks that disagree", corefile("denial 1", "") + "other.internal:PORT {\n bind 127.0.0.1\n fluid {\n denial 2\n }\n}\n", "belongs to the whole process"},
		{"other agent", strings.Replace(corefile("", ""), "AGENT", "/other.sock", 1), "agent cannot change"},
		{"other gossip", corefile("gossip crdt 127.0.0.1:1", ""), "gossip cannot change"},
		{"other node", corefile("gossip_node other", ""), "gossip_node cannot change"},
		{"one block again", corefile("", ""), ""},
		{"two sockets", corefile("", "multisocket 2"), ""},
		{"one socket", corefile("", ""), ""},
		{"plugin that will fail in shutdown", corefile("ttl 8", "testhook shutdown-error"), ""},
		{"it fails in shutdown", corefile("", ""), "asked for"},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			err := s.reload(step.corefile)
			if step.fails == "" && err != nil {
				t.Fatal(err)
			}
			if step.fails != "" && (err == nil || !strings.Contains(err.Error(), step.fails)) {
				t.Fatalf("error %v, want one with %q", err, step.fails)
			}
			if step.name == "it fails in shutdown" {
				// Restart returned the instance that it stopped; the new one runs.
				s.inst = caddy.Instances()[0]
			}
			p.more(t)
			leases.reclaim()
			n, now := held()
			if n != 1 || now != e {
				t.Errorf("%d leases of %p, want 1 of %p", n, now, e)
			}
		})
	}
	if st := e.client.Stats(); st.Connects != 1 || st.Snapshots != 1 {
		t.Errorf("feed %+v: want one session and one snapshot", st)
	}
	if got := s.ask("checkout.fluid.internal.", dns.TypeA).Answer[0].Header().Ttl; got != 5 {
		t.Errorf("ttl %d, want the 5 of the last good Corefile", got)
	}
}

// A panic in the setup of another plugin leaves a half-built instance in
// CoreDNS's list, and Restart claims success without an instance.
func TestPanicInAnotherSetup(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, corefile("", ""), a)
	s.caughtUp()
	_, e := held()
	p := startProbe(s)
	old := s.inst
	if next, err := s.inst.Restart(s.input(corefile("", "testhook setup-panic"))); next != nil || err != nil {
		t.Fatalf("Restart = %v, %v: CoreDNS changed; look at this test again", next, err)
	}
	p.more(t)
	s.inst = old
	if err := s.reload(corefile("ttl 6", "")); err != nil {
		t.Fatal(err)
	}
	p.more(t)
	p.end(t)
	if n, now := held(); n != 1 || now != e {
		t.Errorf("%d leases of %p, want 1 of %p", n, now, e)
	}
	// SIGTERM runs the callbacks of every instance in the list, the ghost's
	// among them, though it never started.
	for _, ghost := range caddy.Instances() {
		if ghost != s.inst {
			for _, err := range ghost.ShutdownCallbacks() {
				t.Error(err)
			}
			_ = ghost.Stop()
		}
	}
	if n, now := held(); n != 1 || now != e {
		t.Errorf("after the ghost's shutdown: %d leases of %p, want 1 of %p", n, now, e)
	}
}

// TestRemoveAndReturn takes the plugin out of the Corefile and brings it back:
// the engine lingers, and is found as it was.
func TestRemoveAndReturn(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, corefile("", ""), a)
	s.caughtUp()
	_, e := held()
	if err := s.reload("fluid.internal:PORT {\n bind 127.0.0.1\n hosts {\n 10.1.1.1 a.fluid.internal\n }\n}\n"); err != nil {
		t.Fatal(err)
	}
	if n, now := held(); n != 0 || now != e {
		t.Errorf("%d leases of %p, want none of %p", n, now, e)
	}
	if err := s.reload(corefile("", "")); err != nil {
		t.Fatal(err)
	}
	if n, now := held(); n != 1 || now != e {
		t.Errorf("%d leases of %p, want 1 of %p", n, now, e)
	}
	if st := e.client.Stats(); st.Connects != 1 {
		t.Errorf("feed %+v: want one session", st)
	}
	if m := s.ask("checkout.fluid.internal.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("after the return: %v", m)
	}
	// Gone for longer than it lingers, and with another agent.
	if err := s.reload("fluid.internal:PORT {\n bind 127.0.0.1\n hosts\n}\n"); err != nil {
		t.Fatal(err)
	}
	b := newAgent(t)
	b.commit(instance(t, "other 10.7.7.7"))
	s.agent = b
	if err := s.reload(corefile("", "")); err != nil {
		t.Fatal(err)
	}
	if _, now := held(); now == e {
		t.Error("the engine of another agent was kept")
	}
	if m := s.ask("other.fluid.internal.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("with the other agent: %v", m)
	}
	leases.expire()
	if _, now := held(); now == nil {
		t.Error("an engine in use was ended by a late timer")
	}
}

// After the callbacks of a shutdown CoreDNS still serves for a while.
func TestAnswersWhileShuttingDown(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, corefile("", ""), a)
	s.caughtUp()
	for range 2 { // nothing may go wrong if they run twice
		for _, err := range s.inst.ShutdownCallbacks() {
			t.Error(err)
		}
	}
	if _, e := held(); e != nil {
		t.Error("the engine is still there")
	}
	if m := s.ask("checkout.fluid.internal.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("answer %v", m)
	}
}
