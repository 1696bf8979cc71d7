package catalog

import (
	"cmp"
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

// MemberStatus is what failure detection says of a member of the mesh.
type MemberStatus uint8

// The statuses of a member. One that was never observed counts as dead since
// its origin was first heard of.
const (
	MemberAlive MemberStatus = iota
	MemberDead               // failed, or unreachable
	MemberLeft               // said that it goes
)

type memberState struct {
	status MemberStatus
	since  int64
}

// unattendedAfter is how long, in milliseconds, an origin without its agent
// counts like any other.
const unattendedAfter = 10 * 60 * 1000

// health is the liveness of an origin, as it was last evaluated.
type health struct {
	state OriginState
	since int64
}

// OriginState says what the members that speak for an origin are.
type OriginState uint8

// The states of an origin, best first.
const (
	Attended   OriginState = iota // its agent is alive, or was not given up yet
	Unattended                    // its agent is dead for 10 minutes, a DNS member on its host lives
	Dead                          // nothing on its host lives
)

// String returns the state in lower case.
func (s OriginState) String() string {
	return [...]string{"attended", "unattended", "dead"}[min(s, Dead)]
}

// ObserveMember takes note of what failure detection says of a member at a
// time in milliseconds. Its effect on views comes at once or, after the
// hold-down, with Advance.
func (c *Catalog) ObserveMember(now int64, id string, status MemberStatus) Changes {
	if old, ok := c.members[id]; !ok || old.status != status {
		c.members[id] = memberState{status: status, since: now}
	}
	return c.Advance(now)
}

// ForgetMember drops what is known of a member that will not come back.
func (c *Catalog) ForgetMember(id string) { delete(c.members, id) }

// Advance lets time pass: hold-downs end, unattended origins step back, guards
// expire, old tombstones are forgotten. Its owner calls it about once a second with the time in
// milliseconds.
func (c *Catalog) Advance(now int64) Changes {
	t := newTouched()
	for _, o := range c.origins {
		c.assess(o, now, t)
	}
	for name, g := range c.guards {
		if g.due <= now {
			t.addService(name)
		}
	}
	c.settle(now, t)
	ch := t.changes()
	if now >= c.collected+collectEvery {
		c.collected = now
		ch = ch.with(c.Collect(now))
	}
	return ch
}

// collectEvery is how often Advance forgets old tombstones, in milliseconds.
const collectEvery = 60 * 1000

// OriginState returns the liveness of an origin and since when, in
// milliseconds. An unknown origin is dead.
func (c *Catalog) OriginState(id record.OriginID) (state OriginState, since int64) {
	if o := c.origins[id]; o != nil {
		return o.health.state, o.health.since
	}
	return Dead, 0
}

// assess evaluates the liveness of an origin and notes what that changes.
func (c *Catalog) assess(o *origin, now int64, t *touched) {
	if o.cur == nil {
		return
	}
	state, since := c.liveness(o, now)
	if state == o.health.state {
		return
	}
	o.health = health{state: state, since: since}
	lost := state != Attended
	// Who says that it goes withdraws what it vouches for: that is no loss.
	left := state == Dead && c.member(o.cur.node.ID, o).status == MemberLeft
	lose := func(service, id string) {
		if left {
			c.giveUp(service, id)
		} else {
			c.lose(service, id, now)
		}
	}
	for _, cl := range o.cur.log {
		if cl.in != nil {
			t.addService(cl.in.name)
			if lost && cl.kind == record.KindInstance && !cl.dead {
				lose(cl.in.name, cl.id())
			}
		}
	}
	name := o.cur.node.Name
	t.addNode(name)
	if c.nodeOrigin(name) != o && !lost {
		return
	}
	for svc := range c.slot.byNode[name] {
		t.addService(svc)
		for _, r := range c.slot.services[svc].rows {
			if sum, _ := record.Summarize(r.value); lost && sum.Node == name {
				lose(svc, sum.ID)
			}
		}
	}
}

// liveness applies the rules of detection, hold-down and unattended origins.
func (c *Catalog) liveness(o *origin, now int64) (OriginState, int64) {
	node := &o.cur.node
	if o.id == c.own || node.ID == "" {
		return Attended, o.learned
	}
	agent := c.member(node.ID, o)
	if agent.status == MemberAlive {
		return Attended, agent.since
	}
	last := agent.since
	for _, id := range node.Members {
		m := c.member(id, o)
		if m.status == MemberAlive {
			if now < agent.since+unattendedAfter {
				return Attended, agent.since
			}
			return Unattended, agent.since
		}
		last = max(last, m.since)
	}
	if agent.status != MemberLeft {
		last += c.limits.DeadAfter.Milliseconds()
	}
	if now < last {
		return Attended, agent.since
	}
	return Dead, last
}

func (c *Catalog) member(id string, o *origin) memberState {
	if m, ok := c.members[id]; ok {
		return m
	}
	return memberState{status: MemberDead, since: o.learned}
}

// settle brings everything derived up to date after a step.
func (c *Catalog) settle(now int64, t *touched) {
	c.now = max(c.now, now)
	if t.reaped {
		for _, o := range c.origins {
			c.reap(o, t)
		}
	}
	for id := range t.headers {
		if o := c.origins[id]; o != nil {
			c.rename(o, t)
		}
	}
	for name := range t.services {
		c.guardService(name)
	}
}

// reap drops the epochs of an origin that a fence retired.
func (c *Catalog) reap(o *origin, t *touched) {
	last := c.slot.retired[o.id]
	o.staged = slices.DeleteFunc(o.staged, func(h *history) bool {
		if h.epoch <= last {
			c.discard(h, t)
		}
		return h.epoch <= last
	})
	if o.cur != nil && o.cur.epoch <= last {
		c.discard(o.cur, t)
		o.cur = nil
		c.rename(o, t)
	}
	if o.cur == nil && len(o.staged) == 0 {
		delete(c.origins, o.id)
	}
}

// rename follows an origin's header: its node's name, and its liveness.
func (c *Catalog) rename(o *origin, t *touched) {
	name := ""
	if o.cur != nil {
		name = o.cur.node.Name
	}
	if old := o.listed; old != name && old != "" {
		i := slices.Index(c.named[old], o.id)
		if c.named[old] = slices.Delete(c.named[old], i, i+1); len(c.named[old]) == 0 {
			delete(c.named, old)
		}
		c.touchNode(old, t)
	}
	if name != "" && o.listed != name {
		i, _ := slices.BinarySearchFunc(c.named[name], o.id, compareOrigins)
		c.named[name] = slices.Insert(c.named[name], i, o.id)
	}
	if o.listed = name; name != "" {
		c.touchNode(name, t)
	}
	c.assess(o, c.now, t)
}

func compareOrigins(a, b record.OriginID) int { return slices.Compare(a[:], b[:]) }

func (c *Catalog) touchNode(name string, t *touched) {
	t.addNode(name)
	for svc := range c.slot.byNode[name] {
		t.addService(svc)
	}
}

// nodeOrigin returns the origin that owns a node's name: of those not dead the
// oldest node, else the oldest.
func (c *Catalog) nodeOrigin(name string) *origin {
	var best *origin
	for _, id := range c.named[name] {
		o := c.origins[id]
		if o == nil || o.cur == nil {
			continue
		}
		if best == nil || cmp.Or(
			cmp.Compare(o.health.state/Dead, best.health.state/Dead),
			cmp.Compare(o.cur.node.Created, best.cur.node.Created),
		) < 0 {
			best = o
		}
	}
	return best
}
