package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fluid-sd/fluid/plugin/lastgood"
	"github.com/fluid-sd/fluid/plugin/record"
)

// ClientConfig is what a Client needs. Dir, Logger and Forwarder are required.
type ClientConfig struct {
	Dir    string
	Logger *slog.Logger
	// Name, HTTP, Zone and Version describe this agent to others, see ServerInfo.
	Name, HTTP, Zone, Version string
	// Forwarder carries writes and linearizable reads to the leader.
	Forwarder Forwarder
	// Refresh is called when a request found no leader: whoever calls Learn
	// should ask the servers anew. It must not block. May be nil.
	Refresh func()
	// WriteTimeout bounds a write whose context has no earlier deadline.
	// Default 5s.
	WriteTimeout time.Duration
}

// Cluster is what a server tells a Client besides the committed state.
type Cluster struct {
	ID          string // of the cluster
	Term        uint64
	CommitIndex uint64
	Servers     []Server // the leader marked
	Members     []Member // the roster; nil: the one that is known
}

// Client holds what the servers agreed on without being one: it keeps no log
// and no vote, and knows nothing of the cluster's private key. What it holds
// comes by Replace and Apply, and only ever gets newer; the last of it is kept
// on disk, so that a client that restarts has something to show before it
// reaches a server. Its writes and linearizable reads go to the leader.
type Client struct {
	writes
	remote remote

	cfg  ClientConfig
	log  *slog.Logger
	fsm  *fsm // the state and who waits for it; no log behind it
	dir  *os.File
	self ServerInfo

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	cluster atomic.Pointer[Cluster] // never nil
	contact atomic.Int64            // see Heard, in ns since the Unix epoch

	mu     sync.Mutex // one change of state or cluster at a time; guards what follows
	file   *lastgood.File
	said   string // what last went wrong with the disk
	closed bool
}

// State returns what this client has.
func (c *Client) State() State { return c.fsm.state() }

// Changed returns a channel that is closed once the position of State is
// beyond after; at once if it is already.
func (c *Client) Changed(after record.Position) <-chan struct{} { return c.fsm.changedAfter(after) }

// WaitApplied blocks until this client has pos, or ctx is done.
func (c *Client) WaitApplied(ctx context.Context, pos record.Position) error {
	if pos.IsZero() {
		return nil
	}
	before := pos
	before.Index--
	select {
	case <-c.Changed(before):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for position %s: %w", pos, ctx.Err())
	case <-c.ctx.Done():
		return ErrClosed
	}
}

// ClusterID returns the id of the cluster as far as it is known: a client may
// know it before it has any state.
func (c *Client) ClusterID() string { return c.cluster.Load().ID }

// ServerID returns the random id of the data directory.
func (c *Client) ServerID() string { return c.self.ID }

// Self returns what others are to know of this agent. It has no protocol: it
// applies no commands.
func (c *Client) Self() ServerInfo { return c.self }

// Servers returns the servers of the cluster as a server told them last.
func (c *Client) Servers() []Server { return slices.Clone(c.cluster.Load().Servers) }

// Leader returns the leader as a server told it last; its ID is empty if none
// was known.
func (c *Client) Leader() Server {
	for _, sv := range c.cluster.Load().Servers {
		if sv.Leader {
			return sv
		}
	}
	return Server{}
}

// IsLeader returns false.
func (c *Client) IsLeader() bool { return false }

// Err returns nil: nothing stops a client's state for good.
func (c *Client) Err() error { return nil }

// Status returns what a server told last, and how far this client is.
func (c *Client) Status() Status {
	k, pos := c.cluster.Load(), c.State().Position()
	return Status{
		State: "client", Term: k.Term, Generation: pos.Generation, CommitIndex: max(k.CommitIndex, pos.Index),
		AppliedIndex: pos.Index, LastIndex: pos.Index, Leader: c.Leader(), Servers: c.Servers(),
	}
}

// Heard notes that at some time a server that knew of a leader had nothing that
// this client has not.
func (c *Client) Heard(at time.Time) {
	for {
		old := c.contact.Load()
		if old >= at.UnixNano() || c.contact.CompareAndSwap(old, at.UnixNano()) {
			return
		}
	}
}

// LastContact returns the greatest time that Heard was told, zero if none.
func (c *Client) LastContact() time.Time {
	if ns := c.contact.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Learn takes in what a server says of the cluster, and keeps it for the next
// start. It returns an error that wraps ErrOtherCluster, and changes nothing,
// if that is not the cluster that this client belongs to.
func (c *Client) Learn(k Cluster) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.cluster.Load()
	if old.ID != "" && k.ID != "" && k.ID != old.ID {
		return fmt.Errorf("%w: this agent has state of cluster %s, the server is of cluster %s; wipe it with fluid-agent reset if it is to follow that one",
			ErrOtherCluster, old.ID, k.ID)
	}
	k.ID = cmp.Or(k.ID, old.ID)
	k.Servers = slices.Clone(k.Servers)
	c.cluster.Store(&k)
	if k.Members != nil {
		c.putRoster(k.Members)
	}
	if k.ID != old.ID || !slices.EqualFunc(old.Servers, k.Servers, sameServer) {
		c.disk(c.writeIdentity())
	}
	return nil
}

// Lost forgets who leads: no server can be asked.
func (c *Client) Lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := *c.cluster.Load()
	k.Servers = slices.Clone(k.Servers)
	for i := range k.Servers {
		k.Servers[i].Leader, k.Servers[i].Healthy = false, false
	}
	c.cluster.Store(&k)
}

// sameServer compares what does not change from one second to the next.
func sameServer(a, b Server) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Addr == b.Addr && a.HTTP == b.HTTP && a.Zone == b.Zone
}

// putRoster makes members the roster. It is no part of the position.
func (c *Client) putRoster(members []Member) {
	var roster edit[Member]
	for _, m := range members {
		roster.set(m.ID, m)
	}
	next := *c.fsm.current.Load()
	next.members = roster.commit()
	c.fsm.publish(&next)
}

// Replace makes a full state that of this client. One that is older is
// ignored, as is one at the same position with the same content hash.
func (c *Client) Replace(pos record.Position, entries iter.Seq[record.Entry], hash uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	cur := c.fsm.current.Load()
	if pos.Before(cur.pos) || pos == cur.pos && hash == cur.hash {
		return nil
	}
	if c.ClusterID() == "" {
		return fmt.Errorf("state at %s: its cluster is not known yet", pos)
	}
	next := fullState(pos, entries)
	if next.hash != hash {
		return fmt.Errorf("state at %s: its content hash is %x, not %x", pos, next.hash, hash)
	}
	next.cluster.id, next.members = c.ClusterID(), cur.members
	c.fsm.publish(next)
	c.disk(c.rewrite())
	return nil
}

// fullState builds a state of its entries. What was removed before is not
// known, so no increment leads there from anywhere.
func fullState(pos record.Position, entries iter.Seq[record.Entry]) *state {
	t := (&state{}).txn()
	t.s.pos, t.s.floor = pos, pos.Index
	for _, e := range slices.SortedFunc(entries, byIndex) {
		t.s.pos.Index = e.Index
		t.put(e.Key, e.Value, 0, 0)
	}
	t.s.pos = pos
	return t.commit()
}

func byIndex(a, b record.Entry) int {
	return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Key, b.Key))
}

// Apply brings the state from prev to pos. It is ignored if this client is at
// or beyond pos, and refused if it is elsewhere than at prev.
func (c *Client) Apply(prev, pos record.Position, entries []record.Entry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	cur := c.fsm.current.Load()
	if !cur.pos.Before(pos) {
		return nil
	}
	if cur.pos != prev || prev.Generation != pos.Generation {
		return fmt.Errorf("changes from %s to %s do not follow %s", prev, pos, cur.pos)
	}
	c.fsm.publish(cur.advance(pos, entries))
	if err := c.file.Append(prev, pos, entries); errors.Is(err, lastgood.ErrRewrite) {
		c.disk(c.rewrite())
	} else {
		c.disk(err)
	}
	return nil
}

// advance returns the state with changes applied.
func (s *state) advance(pos record.Position, entries []record.Entry) *state {
	t := s.txn()
	var gone []string
	for _, e := range slices.SortedFunc(slices.Values(entries), byIndex) {
		t.s.pos.Index = e.Index
		if !e.Deleted {
			t.put(e.Key, e.Value, 0, 0)
			continue
		}
		// Also of a key that was never live here: a DNS server that the mesh fed
		// may have it.
		t.forget(e.Key, 0)
		t.entomb(e.Key)
		if e.Key.Kind() == record.KindService {
			gone = append(gone, e.Key.Service())
		}
	}
	for _, service := range gone {
		if _, back := t.get(record.ServiceKey(service)); !back && t.stat(service).instances == 0 {
			t.dropStat(service)
		}
	}
	t.s.pos = pos
	t.end()
	return t.commit()
}

// commit has the leader run a command. What is certainly not done is tried
// again until ctx is done, as Store.execute does.
func (c *Client) commit(ctx context.Context, cmd *command) (outcome, error) {
	return cmd.insist(func() (outcome, error) {
		leader := c.Leader()
		if leader.HTTP == "" {
			return outcome{}, &NotLeaderError{Leader: leader}
		}
		return c.remote.write(ctx, leader, cmd)
	}, func(error) bool { return c.retry(ctx) })
}

// retry asks for news of the leader and waits a moment. It reports false if ctx
// or the client ends before.
func (c *Client) retry(ctx context.Context) bool {
	if c.cfg.Refresh != nil {
		c.cfg.Refresh()
	}
	return pause(ctx, c.ctx)
}

// Linearizable returns a State that holds every write that was acknowledged
// before the call, on any server: the leader says how far that is.
func (c *Client) Linearizable(ctx context.Context) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.WriteTimeout)
	defer cancel()
	for {
		var pos record.Position
		err := error(&NotLeaderError{Leader: c.Leader()})
		if leader := c.Leader(); leader.HTTP != "" {
			pos, err = c.remote.read(ctx, leader)
		}
		if err == nil {
			err = c.WaitApplied(ctx, pos)
		}
		if err == nil {
			return c.State(), nil
		}
		if !c.retry(ctx) {
			return State{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
}

// Serve refuses: nobody should take a client for the leader.
func (c *Client) Serve(context.Context, []byte) ([]byte, error) { return failure(c.notLeader()), nil }

func (c *Client) notLeader() error { return &NotLeaderError{Leader: c.Leader()} }

// Join returns a *NotLeaderError that names the leader.
func (c *Client) Join(context.Context, Meta, JoinRequest) (JoinReply, error) {
	return JoinReply{}, c.notLeader()
}

// Remove returns a *NotLeaderError that names the leader.
func (c *Client) Remove(context.Context, Meta, string) error { return c.notLeader() }

// Transfer returns a *NotLeaderError that names the leader.
func (c *Client) Transfer(context.Context, string) error { return c.notLeader() }

// Restore returns a *NotLeaderError that names the leader.
func (c *Client) Restore(context.Context, Meta, io.Reader, uint64) (record.Position, error) {
	return record.Position{}, c.notLeader()
}
