package agent

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/record"
)

const (
	// maxClientID bounds the id of a client, in bytes.
	maxClientID = 64
	// maxFollowers bounds the clients that follow one server at once, and those
	// whose reports it keeps.
	maxFollowers = 2048
	// clientSilence is after how long without a report a client counts as gone:
	// nobody vouches for its DNS members then. It reports each second.
	clientSilence = 4 * time.Second
	// maxReported bounds the DNS members of a client. Its socket takes fewer.
	maxReported = 256
	// fullPause is how often it is said that clients have no room here.
	fullPause = time.Minute
)

// clients is what this server knows of the clients that report to it.
type clients struct {
	mu      sync.Mutex // guards what follows
	byID    map[string]reported
	changed chan struct{}
	said    time.Time // when it was last said that there is no room
}

// reported is the last word of a client.
type reported struct {
	id, name, zone string
	at             time.Time
	members        []feed.Member
}

func newClients() *clients {
	return &clients{byID: map[string]reported{}, changed: make(chan struct{})}
}

// put takes in a report, and forgets those who have been silent for an hour, or
// for the longest time if there is no room. It reports whether to say that there
// is none, since all others are there.
func (c *clients) put(r reported) (full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	longest := r
	for id, o := range c.byID {
		if r.at.Sub(o.at) > time.Hour {
			delete(c.byID, id)
		} else if o.at.Before(longest.at) {
			longest = o
		}
	}
	old, ok := c.byID[r.id]
	if !ok && len(c.byID) >= maxFollowers {
		if r.at.Sub(longest.at) < clientSilence {
			if full = r.at.Sub(c.said) >= fullPause; full {
				c.said = r.at
			}
			return full
		}
		delete(c.byID, longest.id)
	}
	c.byID[r.id] = r
	if !ok || !slices.EqualFunc(old.members, r.members, sameMember) {
		close(c.changed)
		c.changed = make(chan struct{})
	}
	return false
}

// firstSilence returns when the first of the clients turns silent that have
// connected DNS members before pos; zero if none has.
func firstSilence(list []reported, pos record.Position) (at time.Time) {
	for _, r := range list {
		end := r.at.Add(clientSilence)
		behind := slices.ContainsFunc(r.members, func(m feed.Member) bool { return m.Connected && m.Applied.Before(pos) })
		if behind && (at.IsZero() || end.Before(at)) {
			at = end
		}
	}
	return at
}

func sameMember(a, b feed.Member) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Connected == b.Connected && a.Applied == b.Applied && a.ClientTTL == b.ClientTTL
}

// list returns the clients, their members marked as gone with them, and a
// channel that is closed when one reports something new.
func (c *clients) list(now time.Time) ([]reported, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]reported, 0, len(c.byID))
	for _, r := range c.byID {
		r.members = slices.Clone(r.members)
		for i := range r.members {
			r.members[i].Connected = r.members[i].Connected && now.Sub(r.at) < clientSilence
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b reported) int { return strings.Compare(a.id, b.id) })
	return out, c.changed
}

// report answers a client. It is api.Config.Report.
func (a *Agent) report(in api.ClientReport) (api.ClusterInfo, error) {
	st := a.store.State()
	own := a.clusterID()
	if in.ClusterID != "" && own != "" && in.ClusterID != own {
		return api.ClusterInfo{}, fmt.Errorf("%w: the client has state of cluster %s, this is cluster %s; wipe it with fluid-agent reset if it is to follow this one", store.ErrOtherCluster, in.ClusterID, own)
	}
	if in.ID == "" || len(in.ID) > maxClientID {
		return api.ClusterInfo{}, fmt.Errorf("%w: report: id has %d bytes; use 1 to %d", api.ErrInvalid, len(in.ID), maxClientID)
	}
	if len(in.Members) > maxReported {
		return api.ClusterInfo{}, fmt.Errorf("%w: report: %d DNS members; at most %d can be at one client", api.ErrInvalid, len(in.Members), maxReported)
	}
	r := reported{id: in.ID, name: in.Name, zone: in.Zone, at: time.Now()}
	for _, m := range in.Members {
		pos, err := record.ParsePosition(m.Applied)
		if err != nil {
			return api.ClusterInfo{}, err
		}
		ttl, err := time.ParseDuration(m.ClientTTL)
		if err != nil {
			return api.ClusterInfo{}, fmt.Errorf("%w: client TTL: %w", api.ErrInvalid, err)
		}
		r.members = append(r.members, feed.Member{ID: m.ID, Name: m.Name, Applied: pos, Connected: m.Connected, ClientTTL: ttl})
	}
	if !a.isClient() && a.clients.put(r) {
		a.log.Warn("more clients report than are kept; DNS members of the rest count as unreachable", "kept", maxFollowers, "client", r.name)
	}
	s := a.store.Status()
	out := api.ClusterInfo{
		ID: a.store.ServerID(), Server: !a.isClient(), ClusterID: own, Term: s.Term, CommitIndex: s.CommitIndex,
		Servers: make([]api.ZonedServer, len(s.Servers)), Roster: rosterDigest(st),
	}
	for i, sv := range s.Servers {
		out.Servers[i] = api.ZonedServer{RaftServer: api.RaftServerOf(sv), Zone: sv.Zone}
	}
	if out.Roster != in.Roster {
		out.Members = []api.RosterMember{}
		for m := range st.Members() {
			out.Members = append(out.Members, api.RosterMember{ID: m.ID, Name: m.Name})
		}
	}
	return out, nil
}

// reporting describes the agents that are no servers, as far as this one hears
// of them by itself, and the DNS members at their sockets, except those in here,
// to which it adds.
func (a *Agent) reporting(here map[string]bool) []api.Member {
	if a.isClient() {
		self := a.store.Self()
		return []api.Member{{Name: self.Name, ID: self.ID, Role: "agent", State: "alive", Zone: self.Zone, Host: self.Name}}
	}
	var out []api.Member
	clients, _ := a.clients.list(time.Now())
	for _, c := range clients {
		state := "alive"
		if time.Since(c.at) > clientSilence {
			state = "suspect"
		}
		out = append(out, api.Member{Name: c.name, ID: c.id, Role: "agent", State: state, Zone: c.zone, Host: c.name})
		for _, m := range c.members {
			if here[m.ID] || !m.Connected {
				continue
			}
			here[m.ID] = true
			out = append(out, api.Member{
				Name: memberName(m), ID: m.ID, Role: "dns", State: "alive", Zone: c.zone, Host: c.name, AppliedIndex: m.Applied.Index,
			})
		}
	}
	return out
}

// rosterDigest tells two rosters apart.
func rosterDigest(st store.State) string {
	h := fnv.New128a()
	for m := range st.Members() {
		_, _ = fmt.Fprintf(h, "%q %q\n", m.ID, m.Name)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// serveClients serves the committed state to agents that are no servers, by
// the protocol that DNS servers speak.
func (a *Agent) serveClients() error {
	f, err := feed.NewServer(feed.ServerConfig{
		Source: source{a.store, a.view}, Implementation: a.cfg.Gossip.Impl, Version: record.Version,
		Peers: feed.Peers{Unchecked: true}, MaxClients: maxFollowers, Logger: a.log.With("part", "clients"),
	})
	if err != nil {
		return err
	}
	a.followers = f
	a.handoff = &handoff{conns: make(chan net.Conn), done: make(chan struct{})}
	a.undo.push("clients", func(context.Context) error { f.Stop(); return nil })
	go func() { a.fail("clients", f.Serve(a.handoff)) }()
	return nil
}

// handoff is a listener of connections that HTTP gave away.
type handoff struct {
	conns chan net.Conn
	done  chan struct{} // closed by Close
	once  sync.Once
}

var _ net.Listener = (*handoff)(nil)

// give hands a connection to Accept, or closes it if nobody accepts any more.
func (h *handoff) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handoff) Addr() net.Addr { return handoffAddr{} }

type handoffAddr struct{}

func (handoffAddr) Network() string { return "http" }
func (handoffAddr) String() string  { return "http" }
