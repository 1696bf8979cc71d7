package agenttest

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The bounds of issue 2 from the 201 of a registration to its DNS answer.
const (
	wantP50 = 5 * time.Millisecond
	wantP99 = 25 * time.Millisecond
)

// BenchmarkRegistrationToAnswer registers 1,000 new services one after the
// other and measures, for each, from the moment the 201 has arrived until DNS
// answers with the address. Beside it stand the time that the registration
// itself took and the time of a bare fsync on the same disk.
func BenchmarkRegistrationToAnswer(b *testing.B) {
	const registrations = 1000
	h := newHost(b)
	h.startAgent()
	h.startDNS()
	for round := 0; b.Loop(); round++ {
		syncs := fsyncTimes(b, h.dir, registrations)
		writes, answers := h.registerAndAsk(fmt.Sprintf("r%d-", round), registrations)
		b.Logf("201 to DNS answer: %v", answers)
		b.Logf("registration:      %v", writes)
		b.Logf("bare fsync:        %v", syncs)
		ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
		b.ReportMetric(ms(answers.at(.5)), "answer-p50-ms")
		b.ReportMetric(ms(answers.at(.99)), "answer-p99-ms")
		b.ReportMetric(ms(writes.at(.5)), "write-p50-ms")
		b.ReportMetric(ms(writes.at(.99)), "write-p99-ms")
		b.ReportMetric(ms(syncs.at(.5)), "fsync-p50-ms")
		b.ReportMetric(ms(syncs.at(.99)), "fsync-p99-ms")
		if answers.at(.5) > wantP50 || answers.at(.99) > wantP99 {
			b.Errorf("201 to DNS answer: got %v, want p50 <= %v and p99 <= %v", answers, wantP50, wantP99)
		}
	}
}

// TestRegistrationReachesDNS is the benchmark in small. Its bound only tells a
// path that pushes from one that polls, because other tests run beside it.
func TestRegistrationReachesDNS(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startAgent()
	h.startDNS()
	writes, answers := h.registerAndAsk("app-", 100)
	t.Logf("201 to DNS answer: %v", answers)
	t.Logf("registration:      %v", writes)
	if got := answers.at(.5); got > 100*time.Millisecond {
		t.Errorf("201 to DNS answer: got p50 %v, want at most 100ms", got)
	}
}

// registerAndAsk registers services with one address each and waits for each
// answer. It returns how long the registrations and then the answers took.
func (h *host) registerAndAsk(prefix string, n int) (writes, answers latency) {
	h.t.Helper()
	conn, err := net.Dial("udp", h.dns)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	dc := &dns.Conn{Conn: conn}
	for i := range n {
		name, ip := fmt.Sprintf("%s%d", prefix, i), fmt.Sprintf("10.1.%d.%d", i>>8, i&255)
		q := question(name+zone, typeA)
		began := time.Now()
		code, body := h.call(http.MethodPost, "/v1/apps", fmt.Sprintf(`{"appId":%q,"ip":%q}`, name, ip))
		done := time.Now()
		if code != http.StatusCreated {
			h.t.Fatalf("register %s: got %d %s, want 201", name, code, body)
		}
		for {
			if err := dc.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
				h.t.Fatal(err)
			}
			if err := dc.WriteMsg(q); err != nil {
				h.t.Fatal(err)
			}
			r, err := dc.ReadMsg()
			if err != nil {
				h.t.Fatal(err)
			}
			if got := addrs(r); slices.Equal(got, []string{ip}) {
				break
			}
			if time.Since(done) > patience {
				h.t.Fatalf("%s is not answered: %v", name, r)
			}
		}
		writes, answers = append(writes, done.Sub(began)), append(answers, time.Since(done))
	}
	slices.Sort(writes)
	slices.Sort(answers)
	return writes, answers
}

// fsyncTimes measures writing 512 bytes at the end of a file and fsyncing it.
func fsyncTimes(b *testing.B, dir string, n int) (out latency) {
	b.Helper()
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 512)
	for range n {
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		out = append(out, time.Since(began))
	}
	slices.Sort(out)
	return out
}
