package fluid

import (
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/answer"
)

// tooLarge is what a client is told that can take no more.
const tooLarge = "the answer is larger than a message can be"

// edeFixed is the length of an extended error without its text (RFC 8914
// section 2).
const edeFixed = 6

// fit cuts a positive reply to what the client takes, before the server would
// do it with less knowledge of what matters.
func (q *query) fit(m *dns.Msg, a *answer.Answer) {
	if !a.Positive() {
		return
	}
	limit, reserve := q.state.Size(), reserved(q.state.Req)
	opt := m.IsEdns0()
	if a.Alias == "" && opt == nil && a.Fits(q.zone.Zone, len(q.name), reserve, limit) {
		return
	}
	if opt != nil {
		reserve = max(reserve, dns.Len(opt))
		m.Extra = m.Extra[: len(m.Extra)-1 : len(m.Extra)-1] // explain put it last
	}
	proto := q.state.Proto()
	if proto == "tcp" {
		reserve += len(tooLarge) + edeFixed
	}
	if answer.Fit(m, reserve, limit, q.state.Do()) {
		truncated.WithLabelValues(proto).Inc()
		if proto == "tcp" && opt == nil {
			q.explain(m, dns.ExtendedErrorCodeOther, tooLarge)
		}
	}
	if opt != nil {
		m.Extra = append(m.Extra, opt)
	}
}

// reserved returns the length of the OPT record that the server adds to a
// reply: the client's own, less options it does not know.
func reserved(r *dns.Msg) int {
	if opt := r.IsEdns0(); opt != nil {
		return dns.Len(opt)
	}
	return 0
}
