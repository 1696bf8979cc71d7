package fluid

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/answer"
	"github.com/fluid-sd/fluid/plugin/table"
)

// Fluid answers for the zones of one server block.
type Fluid struct {
	Next plugin.Handler
	*shared
}

// shared is what the handlers of one server block have in common: CoreDNS
// makes one for each zone, listener and socket.
type shared struct {
	block    *block
	engine   atomic.Pointer[engine] // set by OnStartup
	counters counterSet
}

// Name implements plugin.Handler.
func (f *Fluid) Name() string { return pluginName }

// ServeDNS implements plugin.Handler.
func (f *Fluid) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if r == nil || len(r.Question) != 1 || r.Opcode != dns.OpcodeQuery || r.Response || r.Question[0].Qclass != dns.ClassINET {
		return plugin.NextOrFailure(f.Name(), f.Next, ctx, w, r)
	}
	makeRoom()
	state := request.Request{W: w, Req: r}
	qname := r.Question[0].Name
	if !plain(qname) {
		qname = state.Name()
	}
	z := f.zone(qname)
	if z == nil {
		return plugin.NextOrFailure(f.Name(), f.Next, ctx, w, r)
	}
	q := query{Fluid: f, state: state, zone: z, name: qname, typ: r.Question[0].Qtype, engine: f.engine.Load()}
	return q.serve(ctx)
}

// zone returns the longest of the block's zones that holds the name.
func (f *Fluid) zone(qname string) *served {
	list := f.block.served.Load()
	if list == nil {
		return nil
	}
	for _, z := range *list {
		if z.Contains(qname) {
			return z
		}
	}
	return nil
}

// query is one query for a name in one of the zones.
type query struct {
	*Fluid
	state  request.Request
	zone   *served
	name   string // lower case
	typ    uint16
	engine *engine
	result result
}

func (q *query) serve(ctx context.Context) (int, error) {
	count := q.counters.get(ctx, q.zone)
	rcode, err := q.respond(ctx)
	count.by[q.result].Inc()
	return rcode, err
}

// respond writes the reply, or leaves it to another plugin or the server.
func (q *query) respond(ctx context.Context) (int, error) {
	if q.typ == dns.TypeAXFR || q.typ == dns.TypeIXFR {
		// The transfer plugin, where there is one, has answered these.
		q.result = resultRefused
		return dns.RcodeRefused, nil
	}
	state := q.engine.state.Load()
	if state == unsynced {
		q.result = resultUnsynced
		return q.fail(dns.ExtendedErrorCodeNotReady, "nothing is known yet")
	}
	if strings.HasPrefix(q.name, whyPrefix) {
		return q.why()
	}
	a := q.engine.answer(q.zone, q.name, q.typ)
	if state == stale && q.expired(a) {
		q.result = resultExpired
		return q.fail(dns.ExtendedErrorCodeNoReachableAuthority, "the last known good is too old")
	}
	if a.Missing && q.block.fall.Through(q.name) {
		q.result = resultFallthrough
		return plugin.NextOrFailure(q.Name(), q.Next, ctx, q.state.W, q.state.Req)
	}
	m := newReply(q.state.Req)
	if rcode, ok := q.fill(ctx, m, a); !ok {
		q.result = resultFailed
		return rcode, nil
	}
	switch {
	case state == stale:
		q.age(&m.Msg)
	case a.Stale:
		q.explain(&m.Msg, dns.ExtendedErrorCodeStaleAnswer, a.Service.Note)
	}
	q.fit(&m.Msg, a)
	if err := q.state.W.WriteMsg(&m.Msg); err != nil {
		return dns.RcodeSuccess, err
	}
	return dns.RcodeSuccess, nil
}

// fill puts an answer into the sections of a reply.
func (q *query) fill(ctx context.Context, m *reply, a *answer.Answer) (rcode int, ok bool) {
	switch {
	case a.SOA:
		m.Answer, m.Ns = q.zone.negative(q.zone.NegativeTTL), q.zone.NS()
	case len(a.Records) == 0:
		q.result = resultNoData
		if a.Missing {
			q.result = resultNXDomain
			m.Rcode = dns.RcodeNameError
		}
		m.Ns = q.zone.negative(a.NegativeTTL(q.zone.Zone))
	case q.state.Do():
		// Signatures cover the whole set, in this order.
		m.set(a.Records, a.Extra)
		m.Ns = q.zone.NS()
	default:
		m.set(a.Draw(m.answer[:]))
		m.Ns = q.zone.NS()
	}
	if a.Apex {
		m.Ns = nil
	}
	if a.Alias != "" && q.typ != dns.TypeCNAME && q.typ != dns.TypeANY {
		return q.chase(ctx, &m.Msg, a)
	}
	return dns.RcodeSuccess, true
}

// answer returns what a zone answers to a question, ready if possible.
func (e *engine) answer(z *served, name string, typ uint16) *answer.Answer {
	key := table.Key{Name: name, Tag: z.id<<16 | uint64(typ)}
	if k := e.answers.Get(key); k != nil && e.current(k) {
		return &k.Answer
	}
	if k := e.denials.Get(key); k != nil && e.current(k) {
		return &k.Answer
	}
	epoch := e.epoch.Load() // before looking at the data
	a := z.Answer(name, typ, e)
	if len(a.Records) > 0 && a.Records[0].Header().Name == name {
		key.Name = a.Records[0].Header().Name // one string less to hold, and to read
	}
	switch {
	case a.Missing:
		// Names that do not exist are found out quickly and asked for at
		// random; keeping them would only drive out others.
	case !a.Positive(), a.Costly && a.Arbitrary:
		e.denials.Put(key, e.keep(a, epoch))
	case a.Costly:
		e.answers.Put(key, e.keep(a, epoch))
	}
	return a
}

func (e *engine) keep(a *answer.Answer, epoch uint64) kept {
	k := kept{Answer: *a, epoch: epoch}
	if a.Source == answer.FromService {
		k.cell = e.services.Cell(a.Service.Name)
	}
	return k
}

// expired reports whether stale data is too old to be answered.
func (q *query) expired(a *answer.Answer) bool {
	limit := q.block.staleFor
	if a.Service != nil && a.Service.Config.ServeStale != 0 {
		limit = a.Service.Config.ServeStale
	}
	return limit >= 0 && q.engine.age() > limit+freshFor
}

// age marks a reply as made from stale data (RFC 8767 section 4, RFC 8914
// section 4.4).
func (q *query) age(m *dns.Msg) {
	q.result = resultStale
	m.Answer, m.Extra = withTTL(m.Answer, q.zone.staleTTL), withTTL(m.Extra, q.zone.staleTTL)
	q.explain(m, dns.ExtendedErrorCodeStaleAnswer, "no news for "+q.engine.age().Truncate(time.Second).String())
}

// withTTL returns records with another TTL; the shared ones are not touched.
func withTTL(rrs []dns.RR, ttl uint32) []dns.RR {
	same := true
	for _, rr := range rrs {
		same = same && rr.Header().Ttl == ttl
	}
	if same {
		return rrs
	}
	out := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		out[i] = dns.Copy(rr)
		out[i].Header().Ttl = ttl
	}
	return out
}

// explain adds an extended error, if the query has an OPT record to answer it
// in. The OPT record is made for this reply; the server completes it.
func (q *query) explain(m *dns.Msg, code uint16, text string) {
	if q.state.Req.IsEdns0() == nil {
		return
	}
	opt := m.IsEdns0()
	if opt == nil {
		opt = &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		m.Extra = append(slices.Clip(m.Extra), opt)
	}
	opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: code, ExtraText: text})
}

// fail writes SERVFAIL with the reason. It reports success, because for a
// failure the server would write a reply of its own.
func (q *query) fail(code uint16, text string) (int, error) {
	m := new(dns.Msg)
	m.SetRcode(q.state.Req, dns.RcodeServerFailure)
	q.explain(m, code, text)
	return dns.RcodeSuccess, q.state.W.WriteMsg(m)
}

// Ready implements ready.Readiness: true from the first sync on.
func (f *Fluid) Ready() bool {
	e := f.engine.Load()
	return e != nil && e.state.Load() != unsynced
}

// CacheBypassZones implements cache.ZoneBypasser: a cache would keep answers
// for longer than they are right, at more cost than making them.
func (f *Fluid) CacheBypassZones() []string {
	var out []string
	for _, z := range f.block.zones {
		out = append(out, strings.ToLower(z.Origin))
	}
	return out
}
