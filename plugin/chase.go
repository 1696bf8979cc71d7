package fluid

import (
	"context"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/pkg/upstream"
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/answer"
)

// maxAliases bounds the aliases that one query follows.
const maxAliases = 8

// chase follows the alias in a reply through this server, which may know its
// target or forward the question. It is the only thing in an answer that can
// wait, and only for services that are nothing but a name elsewhere.
func (q *query) chase(ctx context.Context, m *dns.Msg, a *answer.Answer) (rcode int, ok bool) {
	depth, _ := ctx.Value(dnsserver.LoopKey{}).(int)
	if depth > maxAliases {
		return dns.RcodeServerFailure, false
	}
	ctx = context.WithValue(ctx, dnsserver.LoopKey{}, depth+1)
	reply, err := upstream.New().Lookup(ctx, q.state, a.Alias, q.typ)
	switch {
	case err != nil || reply == nil:
	case reply.Rcode == dns.RcodeNameError, reply.Rcode == dns.RcodeSuccess && len(reply.Answer) == 0:
		// The reply has the code of the last name (RFC 6604 section 3).
		m.Rcode = reply.Rcode
		m.Answer = append(m.Answer, reply.Answer...)
		m.Ns = q.zone.negative(a.NegativeTTL(q.zone.Zone))
	case reply.Rcode == dns.RcodeServerFailure:
		m.Rcode = reply.Rcode
	default:
		m.Answer = append(m.Answer, reply.Answer...)
	}
	return dns.RcodeSuccess, true
}
