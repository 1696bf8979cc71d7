package catalog

import (
	"fmt"
	"maps"
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Origin describes one origin as a catalog knows it. It is a value.
type Origin struct {
	Head
	Node    record.Node // its header
	State   OriginState
	Since   int64 // of the state, in milliseconds
	Records int   // live
	Tombs   int   // removals remembered
	Bytes   int   // of live values
	Behind  int   // ranges known above the watermark: something is missing
	Skewed  bool  // it sent a time more than MaxDrift ahead
	Own     bool  // this member writes it
}

// Origins returns every origin that counts, sorted by id.
func (c *Catalog) Origins() []Origin {
	out := make([]Origin, 0, len(c.origins))
	for _, id := range slices.SortedFunc(maps.Keys(c.origins), compareOrigins) {
		o := c.origins[id]
		if o.cur == nil {
			continue
		}
		out = append(out, Origin{
			Head: o.head(), Node: o.cur.node, State: o.health.state, Since: o.health.since,
			Records: o.cur.live, Tombs: len(o.cur.log) - o.cur.live, Bytes: o.cur.bytes,
			Behind: len(o.cur.spans), Skewed: o.skewed, Own: id == c.own,
		})
	}
	return out
}

// OwnOrigin returns the origin that this member writes, zero if none, and how
// many are known.
func (c *Catalog) OwnOrigin() (own record.OriginID, known int) { return c.own, len(c.origins) }

// Conflicts returns how many versions were taken in that another origin's live
// version of the instance was concurrent with.
func (c *Catalog) Conflicts() uint64 { return c.conflicts }

// Memory returns the estimated memory of all origins, in bytes, as it counts
// towards Limits.
func (c *Catalog) Memory() int { return c.bytes }

const formatMembers = 5

// MemberFrame encodes what ObserveMember was told, for a reader that has no
// failure detection of its own.
func (c *Catalog) MemberFrame() []byte {
	b := []byte{formatMembers}
	b = appendNums(b, uint64(len(c.members)))
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		m := c.members[id]
		b = appendText(b, id)
		b = append(b, byte(m.status))
		b = appendNums(b, uint64(m.since))
	}
	return b
}

// TakeFrame takes in what a relay sends: an encoded delta, or the frame that
// MemberFrame made. now is in milliseconds.
func (c *Catalog) TakeFrame(now int64, frame []byte) (Changes, error) {
	if len(frame) > 0 && frame[0] == formatMembers {
		return c.takeMembers(now, frame)
	}
	d, err := DecodeDelta(frame)
	if err != nil {
		return Changes{}, err
	}
	m, err := c.Merge(now, &d)
	return m.Changes, err
}

func (c *Catalog) takeMembers(now int64, frame []byte) (Changes, error) {
	r := reader{b: frame}
	r.format(formatMembers)
	n := r.count(3)
	members := make(map[string]memberState, n)
	for range n {
		id := r.text()
		status := MemberStatus(r.byte())
		since := int64(r.num())
		if status > MemberLeft {
			return Changes{}, fmt.Errorf("catalog: member %q: %w", id, ErrDelta)
		}
		members[id] = memberState{status: status, since: min(since, now)}
	}
	if err := r.done("members"); err != nil {
		return Changes{}, err
	}
	c.members = members
	return c.Advance(now), nil
}
