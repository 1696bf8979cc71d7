package fluid

import "github.com/miekg/dns"

// reply is a message together with room for what nearly every reply holds, so
// that making one allocates once. Nothing in it is shared with other replies.
type reply struct {
	dns.Msg
	question [1]dns.Question
	answer   [4]dns.RR
	extra    [1]dns.RR // for the OPT record that the server appends
}

// newReply returns an authoritative reply to a query, as yet without records.
func newReply(r *dns.Msg) *reply {
	m := &reply{question: [1]dns.Question{r.Question[0]}}
	m.Id, m.Response, m.Opcode, m.Authoritative = r.Id, true, r.Opcode, true
	m.RecursionDesired, m.CheckingDisabled = r.RecursionDesired, r.CheckingDisabled
	m.Question, m.Extra = m.question[:], m.extra[:0]
	return m
}

// set gives the reply an answer and what is additional to it.
func (m *reply) set(records, extra []dns.RR) {
	m.Answer = records
	if len(extra) > 0 {
		m.Extra = extra
	}
}

// plain reports whether a name is as CoreDNS would write it already: in lower
// case, with nothing to escape.
func plain(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
