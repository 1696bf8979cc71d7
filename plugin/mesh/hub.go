package mesh

import (
	"maps"
	"slices"
	"sync"
)

// Hub is the group of in-memory members. What one publishes the others hold
// when Publish returns. The zero Hub is ready.
type Hub struct {
	mu      sync.Mutex // guards what is below, and orders all deliveries
	members map[string]*member
	cut     map[[2]string]bool // pairs of ids that do not hear of each other

	reported chan struct{} // closed when a member reports; nil if nobody waits
}

var processHub Hub

// others returns the members that m hears of, sorted by id. hub.mu is held.
func (h *Hub) others(m *member) []*member {
	var out []*member
	for _, id := range slices.Sorted(maps.Keys(h.members)) {
		if o := h.members[id]; o != m && o.cfg.Label == m.cfg.Label && !h.cut[pair(m.cfg.ID, id)] {
			out = append(out, o)
		}
	}
	return out
}

func pair(a, b string) [2]string {
	if a > b {
		a, b = b, a
	}
	return [2]string{a, b}
}

// Cut ends communication between each of a and each of b, until Heal. They
// hold each other dead at once.
func (h *Hub) Cut(a, b []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range a {
		for _, y := range b {
			mx, my := h.members[x], h.members[y]
			if mx == nil || my == nil || h.cut[pair(x, y)] {
				continue
			}
			h.cut[pair(x, y)] = true
			mx.see(my.describe(Dead))
			my.see(mx.describe(Dead))
		}
	}
}

// Heal undoes every Cut; what both sides learned meanwhile is exchanged.
func (h *Hub) Heal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.cut)
	for _, id := range slices.Sorted(maps.Keys(h.members)) {
		m := h.members[id]
		for _, o := range h.others(m) {
			m.see(o.describe(Alive))
			h.sync(m, o)
		}
	}
}

// sync brings two members to one state. hub.mu is held.
func (h *Hub) sync(a, b *member) {
	a.pull(b)
	b.pull(a)
}
