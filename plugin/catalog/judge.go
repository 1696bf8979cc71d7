package catalog

import (
	"cmp"
	"iter"

	"github.com/fluid-sd/fluid/plugin/record"
)

// verdict is one logical instance, or one version that lost, as judged.
type verdict struct {
	in      Instance
	sum     record.Summary
	rule    Rule
	decider *overlay
	allowed bool   // an allow overlay targets it
	claim   *claim // nil for a committed instance
	origin  *origin
}

// critical reports whether the committed class, or the committed instances,
// make a service critical.
func (sv *service) critical() bool {
	switch {
	case sv == nil:
		return false
	case sv.config != nil:
		return sv.config.Class != record.ClassEphemeral
	}
	return len(sv.rows) > 0
}

// judgeAll yields a verdict for every logical instance of a service. With
// losers, it also yields every claim that is hidden by another version, a fence
// or the class.
func (c *Catalog) judgeAll(name string, losers func(*verdict)) iter.Seq[*verdict] {
	return func(yield func(*verdict) bool) {
		sv := c.slot.services[name]
		if sv != nil {
			for _, r := range sv.rows {
				if !yield(c.judgeRow(sv, r)) {
					return
				}
			}
		}
		ce := c.cells[name]
		if ce == nil {
			return
		}
		for i := 0; i < len(ce.claims) && ce.claims[i].kind == record.KindInstance; {
			j := i + 1
			for j < len(ce.claims) && ce.claims[j].kind == record.KindInstance && ce.claims[j].id() == ce.claims[i].id() {
				j++
			}
			if v := c.judgeClaims(sv, ce.claims[i:j], losers); v != nil && !yield(v) {
				return
			}
			i = j
		}
	}
}

// judgeRow judges a committed instance: overlays first, then the status that
// its node reported, then whether the node lives.
func (c *Catalog) judgeRow(sv *service, r row) *verdict {
	sum, _ := record.Summarize(r.value) // checked when it was stored
	v := &verdict{sum: sum, in: Instance{
		Value: r.value, ID: sum.ID, Label: record.HostLabel(sum.ID), Index: r.index,
		Weight: sum.Weight, Status: sum.Status,
	}}
	if sum.Node != "" {
		v.origin = c.nodeOrigin(sum.Node)
	}
	if v.origin != nil {
		at := record.Position{Generation: c.slot.pos.Generation, Index: r.index}
		for _, cl := range c.cells[sv.name].of(record.KindReport, sum.ID) {
			if cl.from != v.origin.cur || cl.dead {
				continue
			}
			if rep, err := record.DecodeReport(cl.value); err == nil && rep.Position == at {
				v.in.Status = max(v.in.Status, rep.Status)
			}
		}
	}
	c.decide(v, sv)
	return v
}

// judgeClaims judges the versions of one logical instance that gossip carries.
// It returns nil if none is left.
func (c *Catalog) judgeClaims(sv *service, claims []*claim, losers func(*verdict)) *verdict {
	var best *claim
	for _, cl := range claims {
		if cl.dead || !cl.from.shown {
			continue
		}
		if rule := c.hidden(sv, cl); rule != RuleAnswered {
			if losers != nil {
				v := c.newVerdict(cl)
				v.rule = rule
				losers(v)
			}
			continue
		}
		switch {
		case best == nil:
			best = cl
		case c.beats(cl, best):
			best, cl = cl, best
			fallthrough
		default:
			if losers != nil {
				v := c.newVerdict(cl)
				v.rule = RuleSuperseded
				losers(v)
			}
		}
	}
	if best == nil {
		return nil
	}
	v := c.newVerdict(best)
	c.decide(v, sv)
	return v
}

func (c *Catalog) newVerdict(cl *claim) *verdict {
	sum, _ := record.Summarize(cl.value) // checked when it was stored
	return &verdict{sum: sum, claim: cl, origin: c.origins[cl.from.id], in: Instance{
		Value: cl.value, ID: sum.ID, Label: record.HostLabel(sum.ID),
		Weight: sum.Weight, Status: sum.Status, Tier: TierGossip,
	}}
}

// beats is the order among versions that are not hidden: those of origins that
// are not dead first, then the total order.
func (c *Catalog) beats(a, b *claim) bool {
	deadA, deadB := c.origins[a.from.id].health.state == Dead, c.origins[b.from.id].health.state == Dead
	if deadA != deadB {
		return deadB
	}
	if c.mutation == vectorClockFirst {
		if supersedes(a, b) != supersedes(b, a) {
			return supersedes(a, b)
		}
	}
	return compareVersions(a, b) > 0
}

// hidden applies the committed class and the fences to a claim.
func (c *Catalog) hidden(sv *service, cl *claim) Rule {
	key := instanceKey{cl.in.name, cl.id()}
	switch {
	case sv.critical():
		return RuleClass
	case cl.born.Before(c.slot.classAt[key.service]),
		cl.born.Before(c.slot.kills[killKey{cl.from.id, key}]):
		return RuleFenced
	}
	if f, ok := c.slot.moved[key]; ok && f.Origin != cl.from.id && cl.born.Before(f.At) {
		return RuleFenced
	}
	return RuleAnswered
}

// decide applies overlays, status, liveness and guard, in that order. Of
// several weights the one with the closest target counts (instance, node,
// service), then the latest.
func (c *Catalog) decide(v *verdict, sv *service) {
	var drain, deny, weight *overlay
	for o := range c.slot.targeting(sv, v.sum) {
		switch o.Kind {
		case record.OverlayDrain:
			drain = o
		case record.OverlayDeny:
			deny = o
		case record.OverlayAllow:
			v.allowed = true
		case record.OverlayWeight:
			if weight == nil || cmp.Or(cmp.Compare(closeness(o), closeness(weight)), cmp.Compare(o.index, weight.index)) > 0 {
				weight = o
			}
		}
	}
	if weight != nil {
		v.in.Weight = weight.Weight
	}
	switch {
	case deny != nil:
		v.rule, v.decider = RuleDenied, deny
	case drain != nil:
		v.rule, v.decider = RuleDrained, drain
	case v.in.Status == record.Draining, v.in.Status == record.Maintenance:
		v.rule = RuleStatus
	case v.origin != nil && v.origin.health.state == Dead:
		v.rule = RuleDead
	case !v.in.Status.Answered():
		v.rule = RuleCheck
	case v.origin != nil && v.origin.health.state == Unattended:
		v.rule = RuleUnattended
	}
}

func closeness(o *overlay) int {
	switch {
	case o.Instance != "":
		return 2
	case o.Node != "":
		return 1
	}
	return 0
}

// targeting yields the overlays on an instance, its service and its node.
func (s *slot) targeting(sv *service, sum record.Summary) iter.Seq[*overlay] {
	return func(yield func(*overlay) bool) {
		if sv != nil {
			for _, o := range sv.overlays {
				if (o.Instance == "" || o.Instance == sum.ID) && !yield(o) {
					return
				}
			}
		}
		if sum.Node == "" || len(s.onNode) == 0 {
			return
		}
		for _, o := range s.onNode[sum.Node] {
			if !yield(o) {
				return
			}
		}
	}
}
