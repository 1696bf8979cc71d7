package feed

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Member is a DNS member that is, or since the server started was, connected.
type Member struct {
	ID        string          // durable id
	Name      string          // for people; may be empty
	Version   string          // of the plugin; may be empty
	Zones     []string        // zones it serves; not to be changed
	Connected bool            // has a session now
	Relay     bool            // takes gossip from this server
	Applied   record.Position // the position it last reported as applied
	ClientTTL time.Duration   // largest TTL that caches behind it can hold
	UID       uint32          // user that it runs as
	PID       int32           // process, 0 if not known
}

// members is the set of members that a server knows.
type members struct {
	mu      sync.Mutex // guards what follows
	all     map[string]*Member
	order   []string // of last connecting, oldest first
	keep    int      // members kept, connected or not
	changed chan struct{}
}

func newMembers(keep int) *members {
	return &members{all: map[string]*Member{}, keep: keep, changed: make(chan struct{})}
}

// snapshot returns the members sorted by id, and a channel that is closed at
// the next change.
func (m *members) snapshot() ([]Member, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Member, 0, len(m.all))
	for _, e := range m.all {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return out, m.changed
}

// connect adds a member and returns its entry, or nil if one of the id is
// connected. A position that is not believed is replaced by the last one that
// was.
func (m *members) connect(e Member, believed bool) *Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.all[e.ID]
	if old != nil && old.Connected {
		return nil
	}
	if !believed {
		e.Applied = record.Position{}
	}
	if old != nil {
		if !believed {
			e.Applied = old.Applied
		}
		m.order = slices.DeleteFunc(m.order, func(id string) bool { return id == e.ID })
	}
	e.Connected = true
	m.all[e.ID] = &e
	m.order = append(m.order, e.ID)
	if i := slices.IndexFunc(m.order, func(id string) bool { return !m.all[id].Connected }); len(m.order) > m.keep && i >= 0 {
		delete(m.all, m.order[i])
		m.order = slices.Delete(m.order, i, i+1)
	}
	m.notify()
	return &e
}

// disconnect takes an entry of connect.
func (m *members) disconnect(e *Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.Connected = false
	m.notify()
}

// report records what the member of an entry of connect says, its position
// only if that is believed. It does nothing after disconnect.
func (m *members) report(e *Member, pos record.Position, ttl time.Duration, believed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !believed {
		pos = e.Applied
	}
	if !e.Connected || e.Applied == pos && e.ClientTTL == ttl {
		return
	}
	e.Applied, e.ClientTTL = pos, ttl
	m.notify()
}

// notify is called with mu held.
func (m *members) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}
