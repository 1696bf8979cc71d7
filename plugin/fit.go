package fluid

import (
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/answer"
)

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
	if answer.Fit(m, reserve, limit, q.state.Do()) {
		proto := q.state.Proto()
		truncated.WithLabelValues(proto).Inc()
		if proto == "tcp" && opt == nil {
			q.explain(m, dns.ExtendedErrorCodeOther, "the answer is larger than a message can be")
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
