package catalog

import (
	"cmp"
	"iter"
	"maps"
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
	Label  string        // host label, unique in a view
	Index  uint64        // Raft index of the record; 0 in TierGossip
	Weight uint16        // with overlays applied
	Status record.Status // with the status its node reported
	Tier   Tier
	Stale  bool // kept in the answer by the guard
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
}

// Rule names the reason why an instance is in the answer or not.
type Rule uint8

// The rules, in the order in which they are asked.
const (
	RuleAnswered Rule = iota // nothing speaks against it
	RuleDenied               // a deny overlay
	RuleDrained              // a drain overlay
	RuleStatus               // its status is not passing or warning
)

var ruleNames = [...]string{"answered", "denied", "drained", "status"}

// String returns the rule as one lower-case word.
func (r Rule) String() string {
	if int(r) < len(ruleNames) {
		return ruleNames[r]
	}
	return "unknown"
}

// Verdict is one instance and why it is answered or not.
type Verdict struct {
	Instance Instance
	Answered bool
	Rule     Rule
	Overlays []string // ids of the overlays that target it, sorted
	Decider  string   // id of the overlay that decided, if one did
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
	}
}

// Nodes yields the name of every node that an origin described, in no
// particular order.
func (c *Catalog) Nodes() iter.Seq[string] { return maps.Keys(c.nodes) }

// Node returns the node of a name.
func (c *Catalog) Node(name string) (record.Node, bool) {
	n, ok := c.nodes[name]
	return n, ok
}

func (sv *service) exists() bool { return sv != nil && (sv.config != nil || len(sv.rows) > 0) }

// View returns what DNS answers for a service. It reports false if the service
// does not exist; one that exists without an answered instance has an empty
// view. The cost is that of the service's own instances.
func (c *Catalog) View(name string) (*Service, bool) {
	sv := c.slot.services[name]
	if !sv.exists() {
		return nil, false
	}
	out := &Service{Name: sv.name, Class: record.ClassCritical, Index: sv.index, Total: len(sv.rows)}
	if sv.config != nil {
		out.Config, out.Class = sv.config.Service, sv.config.Class
	}
	out.Instances = make([]Instance, 0, len(sv.rows))
	for _, r := range sv.rows {
		if in, rule, _ := c.judge(sv, r); rule == RuleAnswered {
			out.Instances = append(out.Instances, in)
		}
	}
	slices.SortFunc(out.Instances, compareInstances)
	return out, true
}

// Verdicts returns every known instance of a service, answered or not, sorted
// by label. It returns nil for a service that does not exist.
func (c *Catalog) Verdicts(name string) []Verdict {
	sv := c.slot.services[name]
	if !sv.exists() {
		return nil
	}
	out := make([]Verdict, 0, len(sv.rows))
	for _, r := range sv.rows {
		in, rule, decider := c.judge(sv, r)
		v := Verdict{Instance: in, Rule: rule, Answered: rule == RuleAnswered, Decider: decider}
		sum, _ := record.Summarize(r.value)
		for o := range c.slot.targeting(sv, sum) {
			v.Overlays = append(v.Overlays, o.ID)
		}
		slices.Sort(v.Overlays)
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b Verdict) int { return compareInstances(a.Instance, b.Instance) })
	return out
}

func compareInstances(a, b Instance) int {
	return cmp.Or(cmp.Compare(a.Label, b.Label), cmp.Compare(a.ID, b.ID))
}

// judge applies overlays and status to one committed instance.
func (c *Catalog) judge(sv *service, r row) (in Instance, rule Rule, decider string) {
	sum, _ := record.Summarize(r.value) // checked when it was stored
	in = Instance{
		Value: r.value, ID: sum.ID, Label: record.HostLabel(sum.ID), Index: r.index,
		Weight: sum.Weight, Status: sum.Status,
	}
	return c.slot.overlay(sv, sum, in)
}

// overlay applies what operators committed to one instance. Of several weights
// the one with the closest target counts (instance, node, service), then the
// latest.
func (s *slot) overlay(sv *service, sum record.Summary, in Instance) (Instance, Rule, string) {
	var drain, deny, weight *overlay
	for o := range s.targeting(sv, sum) {
		switch o.Kind {
		case record.OverlayDrain:
			drain = o
		case record.OverlayDeny:
			deny = o
		case record.OverlayWeight:
			if weight == nil || cmp.Or(cmp.Compare(closeness(o), closeness(weight)), cmp.Compare(o.index, weight.index)) > 0 {
				weight = o
			}
		}
	}
	if weight != nil {
		in.Weight = weight.Weight
	}
	switch {
	case deny != nil:
		return in, RuleDenied, deny.ID
	case drain != nil:
		return in, RuleDrained, drain.ID
	case !in.Status.Answered():
		return in, RuleStatus, ""
	}
	return in, RuleAnswered, ""
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
		for _, o := range sv.overlays {
			if (o.Instance == "" || o.Instance == sum.ID) && !yield(o) {
				return
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
