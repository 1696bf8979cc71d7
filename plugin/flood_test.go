package fluid

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// floodQueries returns how many queries a flood has: FLUID_TEST_FLOOD, or a
// fifth of the full number.
func floodQueries(t *testing.T) int {
	t.Helper()
	text := os.Getenv("FLUID_TEST_FLOOD")
	switch {
	case text != "":
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("FLUID_TEST_FLOOD: %v", err)
		}
		return n
	case testing.Short():
		return 5000
	}
	return 20_000
}

// floodName returns the i-th name of a flood: what exists, and what an attacker
// makes up that has an answer, an empty one or none.
func floodName(i int) (name string, typ uint16) {
	made := fmt.Sprintf("x%d", i)
	name = []string{
		"web", made, made + ".web", made + ".web.service", made + ".prefer._zone.web", made + ".pin._zone.web",
		"_" + made + "._tcp.web", "db", "eu.blue.eu.web.service", "_why.web",
	}[i%10]
	switch name {
	case "web":
		return name + ".fluid.internal.", []uint16{dns.TypeA, dns.TypeSRV, dns.TypeHTTPS, dns.TypeANY}[i/10%4]
	case "db": // an alias has an answer to each type; those that are followed take long
		return name + ".fluid.internal.", dns.TypeCNAME
	case "_why.web":
		return name + ".fluid.internal.", dns.TypeTXT
	}
	return name + ".fluid.internal.", dns.TypeA
}

// flooded asks s from several sockets at once, a few queries ahead of the
// replies, and returns the number of replies and the most goroutines there were.
func flooded(t *testing.T, s *server, n int) (replies, peak int) {
	t.Helper()
	const sockets, ahead = 8, 16
	var got, most atomic.Int64
	var wg sync.WaitGroup
	for g := range sockets {
		wg.Go(func() {
			conn, err := net.Dial("udp", s.addr)
			if err != nil {
				t.Error(err)
				return
			}
			c := &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}
			defer func() { _ = c.Close() }()
			for i := 0; i < n/sockets; i += ahead {
				for j := range ahead {
					name, typ := floodName(g*n + i + j)
					if err := c.WriteMsg(queryFor(name, typ, 1232)); err != nil {
						t.Error(err)
						return
					}
				}
				if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
					t.Error(err)
					return
				}
				for range ahead {
					if _, err := c.ReadMsg(); err != nil {
						break // the kernel dropped some
					}
					got.Add(1)
				}
				for now, old := int64(runtime.NumGoroutine()), most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
			}
		})
	}
	wg.Wait()
	return int(got.Load()), int(most.Load())
}

// A flood of queries while the writer stands still is answered, and leaves
// neither goroutines nor memory behind.
func TestFlood(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, zoneFile, a)
	s.caughtUp()
	e := leases.running()
	n := floodQueries(t)
	flooded(t, s, 1000) // what CoreDNS keeps for itself
	goroutines, heap := inUse()

	e.mu.Lock() // no change can come in
	replies, peak := flooded(t, s, n)
	stuck := runtime.NumGoroutine()
	e.mu.Unlock()

	_, after := inUse()
	t.Logf("%d queries, %d replies, %d goroutines at most, heap from %d to %d KiB", n, replies, peak, heap>>10, after>>10)
	if replies < n*9/10 {
		t.Errorf("%d replies to %d queries", replies, n)
	}
	// One for each query in flight, and the explanations, which wait.
	if limit := goroutines + 8*16 + 64; peak > limit {
		t.Errorf("%d goroutines at once, want at most %d", peak, limit)
	}
	if limit := goroutines + cap(explaining) + 16; stuck > limit {
		t.Errorf("%d goroutines after the flood, want at most %d", stuck, limit)
	}
	if after > heap+32<<20 {
		t.Errorf("the heap grew by %d MiB", (after-heap)>>20)
	}
	if st := e.denials.Stats(); st.Entries > defaultDenial {
		t.Errorf("%d denials, want at most %d", st.Entries, defaultDenial)
	}
	// However many names are made up, the answers kept are those to real ones.
	if st := e.answers.Stats(); st.Entries > 100 {
		t.Errorf("%d answers kept", st.Entries)
	}
}
