package fluid

import (
	"slices"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/feed"
)

// maxPull is more than all of an origin's records can be.
const maxPull = 1 << 30

// merge takes in a part of what an agent gossips, as the feed relays it. What
// the catalog refuses is counted and dropped: asking again would bring the
// same. Called with mu held.
func (e *engine) merge(frame []byte) {
	d, err := catalog.DecodeDelta(frame)
	if err == nil {
		var m catalog.Merged
		if m, err = e.catalog.Merge(e.wall().UnixMilli(), &d); err == nil {
			e.publish(m.Changes)
			return
		}
	}
	if e.refused.Add(1) == 1 {
		log.Warningf("refused a frame of the relay, and will only count further ones: %v", err)
	}
}

// vector says what is known of each agent's gossip. Called with mu held.
func (e *engine) vector() feed.Vector {
	var v feed.Vector
	for _, h := range e.catalog.Heads() {
		v = append(v, feed.Watermark{Origin: h.Origin, Epoch: h.Epoch, Seq: h.Watermark})
	}
	return v
}

// observe tells the catalog who lives, as far as a server that does not gossip
// can know: itself, and, through the agent's socket, the agent beside it. Of
// the others it has no news but what that agent relays, and it counts them as
// alive for as long as they are relayed. Called with mu held.
func (e *engine) observe(connected bool) {
	now := e.wall().UnixMilli()
	changes := []catalog.Changes{e.catalog.ObserveMember(now, e.head.Member, catalog.MemberAlive)}
	for name := range e.catalog.Nodes() {
		node, ok := e.catalog.Node(name)
		if !ok || node.ID == "" {
			continue
		}
		status := catalog.MemberAlive
		if !connected && slices.Contains(node.Members, e.head.Member) {
			status = catalog.MemberDead
		}
		changes = append(changes, e.catalog.ObserveMember(now, node.ID, status))
	}
	for _, ch := range changes {
		e.publish(ch)
	}
}

// frames encodes all gossip that is known, for the snapshot. Called with mu
// held.
func (e *engine) frames(yield func([]byte) bool) {
	for _, h := range e.catalog.Heads() {
		for _, d := range e.catalog.Pull(catalog.Want{Origin: h.Origin}, maxPull) {
			if !yield(d.Append(nil)) {
				return
			}
		}
	}
}
