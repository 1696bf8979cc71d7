package catalog

import (
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

const (
	guardWindow = 60 * 1000      // milliseconds in which losses count together
	guardHold   = 15 * 60 * 1000 // milliseconds that a lost instance stays at most
	guardFloor  = 3              // instances below which a service is not guarded
)

// guard remembers the instances that a service lost without anybody wanting
// it: by death, by an absent agent, by a failed check.
type guard struct {
	losses map[string]loss // by instance id
	due    int64           // when time alone changes something next
}

// loss is one lost instance. It is in the answer while held is set.
type loss struct {
	at   int64
	held int64 // until when; 0: not held
}

// lose takes note that an instance is about to leave the answer unasked.
func (c *Catalog) lose(service, id string, now int64) {
	g := c.guards[service]
	if g == nil {
		g = &guard{losses: map[string]loss{}}
		c.guards[service] = g
	}
	if _, ok := g.losses[id]; !ok {
		g.losses[id] = loss{at: now}
	}
}

// giveUp takes note that an instance leaves the answer because its node does.
func (c *Catalog) giveUp(service, id string) {
	if g := c.guards[service]; g != nil {
		delete(g.losses, id)
	}
}

// noteLoss records a failed check: a version with status critical in place of
// an answered one.
func (c *Catalog) noteLoss(old *claim, it *Item) {
	if old.in == nil || old.dead || it.Deleted || !old.from.shown {
		return
	}
	var before, after record.Status
	if old.kind == record.KindReport {
		a, _ := record.DecodeReport(old.value)
		b, _ := record.DecodeReport(it.Value)
		before, after = a.Status, b.Status
	} else {
		a, _ := record.Summarize(old.value)
		b, _ := record.Summarize(it.Value)
		before, after = a.Status, b.Status
	}
	if before.Answered() && after == record.Critical {
		c.lose(old.in.name, old.id(), c.now)
	}
}

// guardService decides which of a service's losses stay in its answer.
func (c *Catalog) guardService(name string) {
	g := c.guards[name]
	if g == nil {
		return
	}
	judged := map[string]*verdict{}
	answered := 0
	for v := range c.judgeAll(name, nil) {
		judged[v.in.ID] = v
		if v.rule == RuleAnswered {
			answered++
		}
	}
	var recent []string
	for id, l := range g.losses {
		v := judged[id]
		switch {
		case v == nil, !v.rule.unwanted(), v.allowed, l.held != 0 && l.held <= c.now, l.held == 0 && l.at+guardWindow <= c.now:
			delete(g.losses, id)
		default:
			recent = append(recent, id)
		}
	}
	off := false
	if sv := c.slot.services[name]; sv != nil && sv.config != nil {
		off = sv.config.GuardOff
	}
	n := answered + len(recent)
	if trip := n >= guardFloor && (answered == 0 || 2*len(recent) > n); trip && !off {
		for _, id := range recent {
			if l := g.losses[id]; l.held == 0 {
				l.held = c.now + guardHold
				g.losses[id] = l
			}
		}
	}
	if len(g.losses) == 0 {
		delete(c.guards, name)
		return
	}
	g.due = 1<<63 - 1
	for _, l := range g.losses {
		if l.held != 0 {
			g.due = min(g.due, l.held)
		} else {
			g.due = min(g.due, l.at+guardWindow)
		}
	}
}

// Guarded returns the services in whose answers the guard keeps instances,
// sorted.
func (c *Catalog) Guarded() []string {
	var out []string
	for name, g := range c.guards {
		for _, l := range g.losses {
			if l.held != 0 {
				out = append(out, name)
				break
			}
		}
	}
	slices.Sort(out)
	return out
}
