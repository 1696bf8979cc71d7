package fluid

import (
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/record"
)

// once is a client that checks what it is sent.
type once struct {
	*test.ResponseWriter
	t    testing.TB
	q    *dns.Msg
	sent int
}

func (*once) RemoteAddr() net.Addr { return client }

func (o *once) WriteMsg(m *dns.Msg) error {
	if o.sent++; o.sent > 1 {
		o.t.Error("two replies to one query")
	}
	if m.Id != o.q.Id || len(m.Question) != len(o.q.Question) || len(o.q.Question) > 0 && m.Question[0] != o.q.Question[0] {
		o.t.Errorf("reply to another question: %v", m)
	}
	if _, err := m.Pack(); err != nil {
		o.t.Errorf("reply does not pack: %v in %v", err, m)
	}
	return nil
}

// FuzzServeDNS sends hostile messages: the plugin must not panic, must write
// one reply at most, and none if it leaves the reply to the server.
func FuzzServeDNS(f *testing.F) {
	handler, _ := loaded(f, []record.Entry{
		instance(f, "one 10.0.0.1 port=80 http:80 https:443 +a k=v"),
		instance(f, "two 10.0.0.2,fd00::2 port=80"), instance(f, "two 10.0.0.3 port=80 weight=9"),
		instance(f, "ext host=h.example.net"),
	})
	for _, name := range []string{"one.example.org.", "two.service.example.org.", "_one._tcp.example.org.", "example.org.", `\000.example.org.`, "_why.two.example.org."} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeANY, dns.TypeSRV, dns.TypeAXFR, 0, 65535} {
			m := queryFor(name, typ, 0)
			if data, err := m.Pack(); err == nil {
				f.Add(data)
			}
			m.SetEdns0(1, true)
			m.Opcode = dns.OpcodeUpdate
			if data, err := m.Pack(); err == nil {
				f.Add(data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(dns.Msg)
		if m.Unpack(data) != nil {
			return
		}
		w := &once{ResponseWriter: &test.ResponseWriter{}, t: t, q: m.Copy()}
		sw := request.NewScrubWriter(m, w)
		rcode, err := handler.ServeDNS(t.Context(), sw, m)
		left := err != nil || rcode == dns.RcodeServerFailure || rcode == dns.RcodeRefused || rcode == dns.RcodeFormatError || rcode == dns.RcodeNotImplemented
		if left == (w.sent == 1) {
			t.Errorf("rcode %d, error %v, %d replies written", rcode, err, w.sent)
		}
	})
}

// Messages that no decoder makes, but other plugins might.
func TestOddMessages(t *testing.T) {
	f, _ := loaded(t, []record.Entry{instance(t, "one 10.0.0.1")})
	for name, m := range map[string]*dns.Msg{
		"empty": {}, "two questions": {Question: []dns.Question{{Name: "one.example.org.", Qtype: 1, Qclass: 1}, {Name: "one.example.org.", Qtype: 1, Qclass: 1}}},
		"empty name":   {Question: []dns.Question{{Name: "", Qtype: 1, Qclass: 1}}},
		"no final dot": {Question: []dns.Question{{Name: "one.example.org", Qtype: 1, Qclass: 1}}},
		"a response":   {MsgHdr: dns.MsgHdr{Response: true}, Question: []dns.Question{{Name: "one.example.org.", Qtype: 1, Qclass: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := f.ServeDNS(t.Context(), silent, m); err == nil {
				t.Log("answered")
			}
		})
	}
}

// A flood of queries while the writer stands still stays bounded.
func TestFlood(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, zoneFile, a)
	s.caughtUp()
	e := leases.running()
	e.mu.Lock() // no change can come in
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	f := &Fluid{shared: &shared{block: s.zoneBlock()}}
	f.engine.Store(e)
	n := 100_000
	if testing.Short() {
		n = 5000
	}
	for g := range 4 {
		wg.Go(func() {
			for i := range n / 4 {
				name := []string{"web", "nobody", "x.web", "t.web.service"}[i%4]
				q := queryFor(randomCase(name, g+i)+".fluid.internal.", uint16(1+i%60), 1232)
				_, _ = f.ServeDNS(t.Context(), silent, q)
			}
		})
	}
	wg.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	e.mu.Unlock()
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	if st := e.denials.Stats(); st.Entries > defaultDenial {
		t.Errorf("%d denials, want at most %d", st.Entries, defaultDenial)
	}
}

// randomCase varies a name, so that it is another one to a cache.
func randomCase(name string, n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	if name != "web" {
		return string(letters[n%26]) + string(letters[n/26%26]) + string(letters[n/676%26]) + name[1:]
	}
	return name
}
