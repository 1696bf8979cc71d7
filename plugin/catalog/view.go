package catalog

import (
	"cmp"
	"iter"
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Tier says where an instance's existence is recorded.
type Tier uint8

// The tiers a record can come from.
const (
	TierRaft   Tier = iota // committed
	TierGossip             // an origin's own
)

// String returns "raft" or "gossip".
func (t Tier) String() string {
	if t == TierGossip {
		return "gossip"
	}
	return "raft"
}

// Instance is one instance of a view. It is a value; its strings share the
// catalog's memory and never change.
type Instance struct {
	Value  string        // encoded record.Instance, as registered
	ID     string        // canonical id
	Label  string        // host label
	Index  uint64        // Raft index of the record; 0 in TierGossip
	Weight uint16        // with overlays applied
	Status record.Status // the worse of the registered one and the one its node reported
	Tier   Tier
	Stale  bool // kept in the answer by the guard, or for want of an attended one
}

// Record decodes the instance, with the weight and status of the view.
func (in *Instance) Record() (record.Instance, error) {
	r, err := record.DecodeInstance(in.Value)
	r.Weight, r.Status = in.Weight, in.Status
	return r, err
}

// Service is the view of one service: what DNS answers from. It is immutable.
type Service struct {
	Name      string
	Class     record.Class
	Config    record.Service // zero settings mean "as the zone says"
	Index     uint64         // Raft index of the last change to the service, its instances or their overlays
	Instances []Instance     // those answered, sorted by Label
	Total     int            // instances known, answered or not
	// Note says in one sentence why the answer holds Stale instances, for an
	// extended DNS error; empty if it holds none.
	Note string
}

// Rule names the reason why an instance is in the answer or not.
type Rule uint8

// The rules.
const (
	RuleAnswered   Rule = iota // nothing speaks against it
	RuleGuarded                // answered although lost, so that the service is not emptied
	RuleDenied                 // a deny overlay
	RuleDrained                // a drain overlay
	RuleStatus                 // its owner drains it or has it in maintenance
	RuleCheck                  // its check failed
	RuleDead                   // nothing on its host lives
	RuleUnattended             // its agent is gone for long, and others are there to answer
	RuleFenced                 // a committed fence hides it
	RuleClass                  // the committed class of the service is another
	RuleSuperseded             // another origin's version of the same instance wins
)

var ruleNames = [...]string{
	"answered", "guarded", "denied", "drained", "status", "check", "dead", "unattended", "fenced", "class", "superseded",
}

// String returns the rule as one lower-case word.
func (r Rule) String() string {
	if int(r) < len(ruleNames) {
		return ruleNames[r]
	}
	return "unknown"
}

// unwanted reports whether nobody asked for the instance to leave the answer.
func (r Rule) unwanted() bool { return r == RuleCheck || r == RuleDead || r == RuleUnattended }

// Verdict is one instance, or one version of it, and why it is answered or not.
type Verdict struct {
	Instance Instance
	Answered bool
	Rule     Rule
	Overlays []string // ids of the overlays that target it, sorted
	Decider  string   // id of the overlay that decided, if one did

	// Of TierGossip, and of a committed instance whose node is known: who
	// speaks for it.
	Origin record.OriginID
	// Of TierGossip: the version, and whether a competing version was written
	// without knowledge of this one, or this one without knowledge of it.
	Epoch, Seq uint64
	HLC        HLC
	Born       record.Position
	Concurrent bool
}

// Services yields the name of every service that exists, in no particular
// order. The catalog must not be changed meanwhile.
func (c *Catalog) Services() iter.Seq[string] {
	return func(yield func(string) bool) {
		for name, sv := range c.slot.services {
			if sv.exists() && !yield(name) {
				return
			}
		}
		for name, ce := range c.cells {
			if ce.exists() && !c.slot.services[name].exists() && !yield(name) {
				return
			}
		}
	}
}

func (sv *service) exists() bool { return sv != nil && (sv.config != nil || len(sv.rows) > 0) }

// exists reports whether an origin that counts holds an instance or an
// uncollected tombstone of the service.
func (ce *cell) exists() bool {
	return ce != nil && slices.ContainsFunc(ce.claims, func(cl *claim) bool { return cl.kind == record.KindInstance && cl.from.shown })
}

// View returns what DNS answers for a service. It reports false if the service
// does not exist; one that exists without an answered instance has an empty
// view. The cost is that of the service's own instances.
func (c *Catalog) View(name string) (*Service, bool) {
	sv, ce := c.slot.services[name], c.cells[name]
	if !sv.exists() && !ce.exists() {
		return nil, false
	}
	out := &Service{Name: name, Class: record.ClassEphemeral}
	if sv.exists() {
		out.Name, out.Class, out.Index = sv.name, record.ClassCritical, sv.index
		out.Instances = make([]Instance, 0, len(sv.rows))
	}
	if sv != nil && sv.config != nil {
		out.Config, out.Class = sv.config.Service, sv.config.Class
	}
	held := c.guards[name]
	var unattended []Instance
	for v := range c.judgeAll(name, nil) {
		out.Total++
		switch {
		case v.rule == RuleAnswered:
			out.Instances = append(out.Instances, v.in)
		case held.holds(v):
			v.in.Stale = true
			out.Instances = append(out.Instances, v.in)
			out.Note = "most instances were lost at once; the last known good are kept"
		case v.rule == RuleUnattended:
			v.in.Stale = true
			unattended = append(unattended, v.in)
		}
	}
	if len(out.Instances) == 0 && len(unattended) > 0 {
		out.Instances = unattended
		out.Note = "the agents of all instances are unreachable"
	}
	slices.SortFunc(out.Instances, compareInstances)
	return out, true
}

// holds reports whether the guard keeps an instance that was lost.
func (g *guard) holds(v *verdict) bool {
	return g != nil && v.rule.unwanted() && !v.allowed && g.losses[v.in.ID].held != 0
}

// Verdicts returns every known instance of a service, answered or not, and
// every version that another one hides, sorted by label. It returns nil for a
// service that does not exist.
func (c *Catalog) Verdicts(name string) []Verdict {
	sv := c.slot.services[name]
	if !sv.exists() && !c.cells[name].exists() {
		return nil
	}
	view, _ := c.View(name)
	kept := map[string]bool{}
	for i := range view.Instances {
		if view.Instances[i].Stale {
			kept[view.Instances[i].ID] = true
		}
	}
	out := []Verdict{}
	add := func(v *verdict) {
		pub := Verdict{Instance: v.in, Rule: v.rule, Answered: v.rule == RuleAnswered}
		if kept[v.in.ID] && v.rule.unwanted() {
			pub.Answered, pub.Rule, pub.Instance.Stale = true, RuleGuarded, true
		}
		if v.decider != nil {
			pub.Decider = v.decider.ID
		}
		for o := range c.slot.targeting(sv, v.sum) {
			pub.Overlays = append(pub.Overlays, o.ID)
		}
		slices.Sort(pub.Overlays)
		if v.origin != nil {
			pub.Origin = v.origin.id
		}
		if cl := v.claim; cl != nil {
			pub.Epoch, pub.Seq, pub.HLC, pub.Born = cl.from.epoch, cl.seq, cl.hlc, cl.born
			pub.Concurrent = c.contested(cl)
		}
		out = append(out, pub)
	}
	for v := range c.judgeAll(name, add) {
		add(v)
	}
	slices.SortStableFunc(out, func(a, b Verdict) int { return compareInstances(a.Instance, b.Instance) })
	return out
}

// contested reports whether another origin's live version of the instance and
// this one were written without knowledge of each other.
func (c *Catalog) contested(cl *claim) bool {
	for _, other := range cl.in.of(cl.kind, cl.id()) {
		if other != cl && !other.dead && other.from.shown && !supersedes(cl, other) && !supersedes(other, cl) {
			return true
		}
	}
	return false
}

func compareInstances(a, b Instance) int {
	return cmp.Or(cmp.Compare(a.Label, b.Label), cmp.Compare(a.ID, b.ID))
}

// Nodes yields the name of every node that a living origin described, in no
// particular order.
func (c *Catalog) Nodes() iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range c.named {
			if _, ok := c.Node(name); ok && !yield(name) {
				return
			}
		}
	}
}

// Node returns the node of a name. Of two nodes with one name the older keeps
// it; a dead node has none.
func (c *Catalog) Node(name string) (record.Node, bool) {
	o := c.nodeOrigin(name)
	if o == nil || o.health.state == Dead {
		return record.Node{}, false
	}
	return o.cur.node, true
}
