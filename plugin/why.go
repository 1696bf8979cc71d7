package fluid

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/answer"
	"github.com/fluid-sd/fluid/plugin/catalog"
)

// whyPrefix is put before a name to ask where its answer comes from.
const whyPrefix = "_why."

// maxWhy bounds the records of one explanation.
const maxWhy = 200

// explaining holds a token for each explanation in the making. They can wait
// for a writer, and are not to pile up behind one that stands still.
var explaining = make(chan struct{}, 8)

// why answers for _why.NAME with what is known of NAME: one TXT record for the
// state of this server, and one for each instance, answered or not. It takes
// the writers' mutex, as no other query does, and is therefore only for those
// whom the operator lets ask.
func (q *query) why() (int, error) {
	if !q.mayAsk() {
		q.result = resultRefused
		return dns.RcodeRefused, nil
	}
	select {
	case explaining <- struct{}{}:
		defer func() { <-explaining }()
	default:
		q.result = resultFailed
		return q.fail(dns.ExtendedErrorCodeOther, "too many explanations at once")
	}
	m := new(dns.Msg)
	m.SetReply(q.state.Req)
	m.Authoritative = true
	a := q.zone.Answer(strings.TrimPrefix(q.name, whyPrefix), dns.TypeANY, q.engine)
	switch {
	case a.Missing:
		q.result = resultNXDomain
		m.Rcode = dns.RcodeNameError
		m.Ns = q.zone.negative(0)
	case q.typ != dns.TypeTXT && q.typ != dns.TypeANY:
		q.result = resultNoData
		m.Ns = q.zone.negative(0)
	default:
		for _, line := range q.engine.explain(a) {
			m.Answer = append(m.Answer, answer.Text(q.name, line))
		}
		answer.Fit(m, reserved(q.state.Req), q.state.Size(), false)
	}
	return dns.RcodeSuccess, q.state.W.WriteMsg(m)
}

// mayAsk reports whether the client is the machine itself or one of those
// allowed.
func (q *query) mayAsk() bool {
	a, err := netip.ParseAddr(q.state.IP())
	if err != nil {
		return false
	}
	a = a.Unmap()
	if a.IsLoopback() {
		return true
	}
	for _, p := range q.block.why {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// explain returns what is known of an answer, a line for each record of it and
// each one left out.
func (e *engine) explain(a *answer.Answer) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	lines := []string{fmt.Sprintf("state=%s age=%s position=%v cluster=%s serial=%d",
		stateNames[e.state.Load()], e.age().Truncate(time.Millisecond), e.catalog.Position(), e.head.Cluster, e.head.Serial)}
	if a.Service == nil {
		return append(lines, fmt.Sprintf("source=%s records=%d", [...]string{"zone", "service", "catalog"}[a.Source], len(a.Records)))
	}
	svc := a.Service
	lines = append(lines, strings.TrimSpace(fmt.Sprintf("service=%s class=%s index=%d known=%d answered=%d %s",
		svc.Name, svc.Class, svc.Index, svc.Total, len(svc.Instances), svc.Note)))
	now := e.wall().UnixMilli()
	for i, v := range e.catalog.Verdicts(svc.Name) {
		if i == maxWhy {
			return append(lines, "and more")
		}
		lines = append(lines, verdictLine(&v, now))
	}
	return lines
}

func verdictLine(v *catalog.Verdict, now int64) string {
	in := &v.Instance
	var b strings.Builder
	fmt.Fprintf(&b, "instance=%s answered=%v rule=%s tier=%s", in.ID, v.Answered, v.Rule, in.Tier)
	if in.Tier == catalog.TierRaft {
		fmt.Fprintf(&b, " index=%d", in.Index)
	} else {
		fmt.Fprintf(&b, " version=%d.%d born=%v", v.Epoch, v.Seq, v.Born)
	}
	if !v.Origin.IsZero() {
		fmt.Fprintf(&b, " origin=%s", v.Origin)
	}
	fmt.Fprintf(&b, " status=%s weight=%d", in.Status, in.Weight)
	if r, err := in.Record(); err == nil && r.Registered > 0 {
		fmt.Fprintf(&b, " age=%s", (time.Duration(now-r.Registered) * time.Millisecond).Truncate(time.Second))
	}
	if v.Decider != "" {
		fmt.Fprintf(&b, " by=%s", v.Decider)
	}
	if len(v.Overlays) > 0 {
		fmt.Fprintf(&b, " overlays=%s", strings.Join(v.Overlays, ","))
	}
	if v.Concurrent {
		b.WriteString(" concurrent=true")
	}
	return b.String()
}
