package answer

import (
	"sort"

	"github.com/miekg/dns"
)

// headerSize is the length of a message's header, and questionFixed that of a
// question without its name.
const (
	headerSize    = 12
	questionFixed = 4
)

// Fits reports whether the whole answer certainly fits into limit bytes, with
// a question for a name of the given text length, an authority section and
// reserve bytes for what is added later. It is quick and ignores compression.
func (a *Answer) Fits(z *Zone, qname, reserve, limit int) bool {
	return headerSize+qname+1+questionFixed+int(a.size)+z.nsSize+reserve <= limit
}

// Fit cuts a positive answer to limit bytes, less reserve for an OPT record
// that is added later. The additional section goes first, whole RRsets from
// the end, which loses nothing that a client cannot ask for (RFC 2181 section
// 9); then the authority section; then records from the end of the answer,
// with the TC bit. If whole is set, none of a cut answer's records are left,
// because an RRset that a signature covers is useless in part.
//
// It reports whether records of the answer were cut.
func Fit(m *dns.Msg, reserve, limit int, whole bool) (cut bool) {
	compress := m.Compress
	m.Compress = true
	defer func() { m.Compress = compress }()
	fits := func() bool { return m.Len()+reserve <= limit }
	if fits() {
		return false
	}
	extra := m.Extra
	m.Extra = nil
	if fits() {
		n := sort.Search(len(extra), func(n int) bool { // the first n+1 that do not fit
			m.Extra = extra[: n+1 : n+1]
			return !fits()
		})
		for n > 0 && n < len(extra) && sameSet(extra[n-1], extra[n]) {
			n--
		}
		m.Extra = extra[:n:n]
		return false
	}
	m.Ns = nil
	if fits() {
		return false
	}
	m.Truncated = true
	answer := m.Answer
	if m.Answer = nil; whole {
		return true
	}
	n := sort.Search(len(answer), func(n int) bool {
		m.Answer = answer[: n+1 : n+1]
		return !fits()
	})
	m.Answer = answer[:n:n]
	return true
}

func sameSet(a, b dns.RR) bool {
	return a.Header().Rrtype == b.Header().Rrtype && a.Header().Name == b.Header().Name
}
