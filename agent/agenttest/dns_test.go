package agenttest

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	typeA   = dns.TypeA
	typeSOA = dns.TypeSOA
)

// question is a query with an OPT, without which there is no EDE.
func question(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.SetEdns0(1232, false)
	return m
}

// ask makes one query over UDP. An error means that nothing came back.
func ask(server, name string, qtype uint16) (*dns.Msg, error) {
	c := &dns.Client{Timeout: time.Second}
	r, _, err := c.Exchange(question(name, qtype), server)
	if err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	return r, nil
}

// mustAsk is ask for a server that has to answer.
func mustAsk(t testing.TB, server, name string, qtype uint16) *dns.Msg {
	t.Helper()
	r, err := ask(server, name, qtype)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// addrs returns the A records of a reply, sorted.
func addrs(r *dns.Msg) []string {
	var out []string
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			out = append(out, a.A.String())
		}
	}
	slices.Sort(out)
	return out
}

// ede returns the codes of the extended errors of a reply (RFC 8914).
func ede(r *dns.Msg) []uint16 {
	var out []uint16
	if opt := r.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				out = append(out, e.InfoCode)
			}
		}
	}
	return out
}

// resolves reports whether a name is answered with exactly these addresses.
func resolves(server, name string, want ...string) bool {
	r, err := ask(server, name, typeA)
	slices.Sort(want)
	return err == nil && r.Rcode == dns.RcodeSuccess && slices.Equal(addrs(r), want)
}

// load asks a server at a steady rate and judges each reply.
type load struct {
	t     testing.TB
	conn  net.Conn
	names []string
	mark  func() int64
	judge func(q query, r *dns.Msg) error
	stop  chan struct{}

	sending, receiving sync.WaitGroup

	mu      sync.Mutex // guards what follows
	sent    map[uint16]query
	count   int
	stale   int // replies with EDE 3
	slowest time.Duration
	errs    []error
}

// query is one that was sent.
type query struct {
	name string
	at   time.Time
	mark int64 // what mark returned just before
}

// startLoad asks for the names in turn, rate times a second. mark is called
// before each query, judge with every reply, from one goroutine each. Replies
// can overtake each other, so what a reply must not fall behind is what was
// known when its query was sent.
func startLoad(t testing.TB, server string, rate int, names []string, mark func() int64, judge func(q query, r *dns.Msg) error) *load {
	t.Helper()
	conn, err := net.Dial("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	l := &load{t: t, conn: conn, names: names, mark: mark, judge: judge, stop: make(chan struct{}), sent: map[uint16]query{}}
	l.sending.Go(func() { l.send(rate) })
	l.receiving.Go(l.receive)
	return l
}

func (l *load) send(rate int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began, n := time.Now(), 0
	for {
		select {
		case <-l.stop:
			return
		case now := <-tick.C:
			// Ticks that were missed are made up for, up to a small burst.
			due := int(now.Sub(began).Seconds() * float64(rate))
			n = max(n, due-50)
			for ; n < due; n++ {
				l.sendOne(uint16(n), l.names[n%len(l.names)])
			}
		}
	}
}

func (l *load) sendOne(id uint16, name string) {
	m := question(name, typeA)
	m.Id = id
	mark := l.mark()
	b, err := m.Pack()
	if err != nil {
		l.fail(err)
		return
	}
	l.mu.Lock()
	if old, ok := l.sent[id]; ok {
		l.errs = append(l.errs, fmt.Errorf("no answer to %s in %v", old.name, time.Since(old.at)))
	}
	l.sent[id] = query{name, time.Now(), mark}
	l.count++
	l.mu.Unlock()
	if _, err := l.conn.Write(b); err != nil {
		l.fail(err)
	}
}

func (l *load) receive() {
	buf := make([]byte, 4096)
	for {
		n, err := l.conn.Read(buf)
		if err != nil {
			select {
			case <-l.stop:
			default:
				l.fail(err)
			}
			return
		}
		r := new(dns.Msg)
		if err := r.Unpack(buf[:n]); err != nil {
			l.fail(err)
			continue
		}
		l.mu.Lock()
		q, ok := l.sent[r.Id]
		delete(l.sent, r.Id)
		l.slowest = max(l.slowest, time.Since(q.at))
		if slices.Contains(ede(r), dns.ExtendedErrorCodeStaleAnswer) {
			l.stale++
		}
		l.mu.Unlock()
		if !ok {
			l.fail(fmt.Errorf("a reply to no query: %v", r.Question))
			continue
		}
		if err := l.judge(q, r); err != nil {
			l.fail(err)
		}
	}
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

// staleSeen returns how many replies were marked stale so far.
func (l *load) staleSeen() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stale
}

// finish stops asking, waits for the last replies, and fails the test if any
// query failed or went unanswered, save those that never came to a process
// because a machine that has other things to do let a socket's buffer overflow.
func (l *load) finish() {
	l.t.Helper()
	close(l.stop)
	l.sending.Wait()
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		l.mu.Lock()
		left := len(l.sent)
		l.mu.Unlock()
		if left == 0 {
			break
		}
	}
	lost := dropped(l.t, l.conn.LocalAddr(), l.conn.RemoteAddr())
	_ = l.conn.Close()
	l.receiving.Wait()
	l.t.Logf("%d queries, slowest answer %v, %d marked stale", l.count, l.slowest, l.stale)
	if l.count == 0 || len(l.sent) > lost || len(l.errs) > 0 {
		l.t.Errorf("%d queries: %d unanswered, of which the kernel dropped %d; %d failed; first: %v",
			l.count, len(l.sent), lost, len(l.errs), l.errs[:min(len(l.errs), 5)])
	}
}

// dropped returns how many packets the kernel dropped at the UDP sockets on
// these addresses of 127.0.0.1, 0 where it does not tell.
func dropped(t testing.TB, addrs ...net.Addr) (n int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(table)) {
		// The second field is the local address, the last the drops.
		f := strings.Fields(line)
		for _, a := range addrs {
			local := fmt.Sprintf("0100007F:%04X", a.(*net.UDPAddr).Port)
			if len(f) == 13 && f[1] == local {
				drops, err := strconv.Atoi(f[12])
				if err != nil {
					t.Fatal(err)
				}
				n += drops
			}
		}
	}
	if n > 0 {
		t.Logf("the kernel dropped %d packets at %v", n, addrs)
	}
	return n
}

// clockFace is the clock of one DNS server, as the client sees it.
type clockFace struct{ shown atomic.Int64 }

// judge notes what a reply shows, unless it is older than what was known when
// the query was sent.
func (c *clockFace) judge(q query, r *dns.Msg) error {
	got := addrs(r)
	if r.Rcode != dns.RcodeSuccess || len(got) != 1 {
		return fmt.Errorf("%s: got %s %v", q.name, dns.RcodeToString[r.Rcode], got)
	}
	now, err := clockOf(got[0])
	if err != nil {
		return err
	}
	if now < q.mark {
		return fmt.Errorf("%s went back from %d to %d", q.name, q.mark, now)
	}
	c.shown.Store(max(c.shown.Load(), now))
	return nil
}
