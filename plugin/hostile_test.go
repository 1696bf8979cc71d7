package fluid

import (
	"net"
	"runtime"
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
	for _, name := range []string{
		"one.example.org.", "two.service.example.org.", "_one._tcp.example.org.", "example.org.", `\000.example.org.`, "_why.two.example.org.",
		"ext.example.org.", "z.prefer._zone.two.example.org.", "a.a.a.one.service.example.org.",
	} {
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
	var g growth
	f.Fuzz(func(t *testing.T, data []byte) {
		g.watch(t)
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

// growth sees whether goroutines or memory pile up over many runs.
type growth struct {
	runs       int
	goroutines int
	heap       uint64
}

// growthEvery is how many runs there are between two looks, and before the
// first, by which the answers that can be kept are.
const growthEvery = 50_000

func (g *growth) watch(t *testing.T) {
	t.Helper()
	if g.runs++; g.runs%growthEvery != 0 {
		return
	}
	goroutines, heap := inUse()
	if g.goroutines == 0 {
		g.goroutines, g.heap = goroutines, heap
	}
	if goroutines > g.goroutines+16 {
		t.Errorf("%d goroutines after %d runs, %d at first", goroutines, g.runs, g.goroutines)
	}
	if heap > g.heap+64<<20 {
		t.Errorf("a heap of %d MiB after %d runs, %d at first", heap>>20, g.runs, g.heap>>20)
	}
}

// inUse returns the goroutines and the heap that are in use.
func inUse() (goroutines int, heap uint64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapAlloc
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
