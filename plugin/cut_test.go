package fluid

import (
	"fmt"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/record"
)

// TestCut asks for large answers with every buffer size.
func TestCut(t *testing.T) {
	a := newAgent(t)
	var entries []record.Entry
	for i := range 100 {
		entries = append(entries, instance(t, fmt.Sprintf("web 10.0.1.%d,fd00::%x port=8080 weight=%d", i+1, i+1, 1+i%3)))
	}
	for i := range 3000 {
		entries = append(entries, instance(t, fmt.Sprintf("huge 10.1.%d.%d port=8080", i/250, i%250+1)))
	}
	a.commit(entries...)
	s := serve(t, zoneFile, a)
	s.caughtUp()

	m := s.ask("web.fluid.internal.", dns.TypeA)
	if m.Compress = true; m.Len() > 512 || !m.Truncated || len(m.Answer) < 10 {
		t.Errorf("no EDNS: %d bytes, TC %v, %d records; want a prefix with TC", m.Len(), m.Truncated, len(m.Answer))
	}
	other := s.ask("web.fluid.internal.", dns.TypeA)
	if slices.Equal(lines(m.Answer), lines(other.Answer)) {
		t.Error("two cut answers hold the same instances; they should be drawn")
	}
	m = s.ask("web.fluid.internal.", dns.TypeA, edns(1232, true))
	if !m.Truncated || len(m.Answer) != 0 {
		t.Errorf("DO and too large: TC %v, %d records; want TC and no part of the set", m.Truncated, len(m.Answer))
	}
	m = s.ask("web.fluid.internal.", dns.TypeA, edns(4096, true))
	first := slices.Clone(m.Answer)
	if m.Truncated || len(m.Answer) != 100 {
		t.Errorf("DO with room: TC %v, %d records", m.Truncated, len(m.Answer))
	}
	m = s.ask("web.fluid.internal.", dns.TypeA, edns(4096, true))
	for i := range m.Answer {
		if m.Answer[i].String() != first[i].String() || i > 0 && string(m.Answer[i-1].(*dns.A).A) >= string(m.Answer[i].(*dns.A).A) {
			t.Fatalf("DO: record %d is not in canonical order", i)
		}
	}
	// 100 SRV records fit compressed without their 200 addresses.
	m = s.ask("web.fluid.internal.", dns.TypeSRV, edns(8000, false))
	if m.Truncated || len(m.Answer) != 100 || len(m.Extra) >= 201 {
		t.Errorf("SRV: TC %v, %d answers, %d additional; want the additional section cut, without TC", m.Truncated, len(m.Answer), len(m.Extra))
	}
	tcp, err := exchange(s.tcp, "tcp", "web.fluid.internal.", dns.TypeSRV)
	if err != nil || tcp.Truncated || len(tcp.Answer) != 100 || len(tcp.Extra) != 200 {
		t.Errorf("over TCP: %v, %d answers, %d additional", err, len(tcp.Answer), len(tcp.Extra))
	}
	tcp, err = exchange(s.tcp, "tcp", "huge.fluid.internal.", dns.TypeSRV, edns(1232, false))
	if err != nil || !tcp.Truncated || len(tcp.Answer) < 1000 || ede(tcp) == nil {
		t.Errorf("larger than a message: %v, TC %v, %d answers, EDE %v", err, tcp.Truncated, len(tcp.Answer), ede(tcp))
	}
	for size := uint16(512); size < 5000; size += 17 {
		m := s.ask("web.fluid.internal.", dns.TypeSRV, edns(size, size%2 == 0))
		if m.Compress = true; m.Len() > int(size) {
			t.Fatalf("%d bytes for a client that takes %d", m.Len(), size)
		}
	}
}
