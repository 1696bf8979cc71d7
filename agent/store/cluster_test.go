package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// testCluster runs several stores in one process, on in-memory transports whose
// links can be cut. It is meant for synctest bubbles, where time is fake.
type testCluster struct {
	t    *testing.T
	root string
	conf func(*Config)
	log  slog.Handler

	mu    sync.Mutex // guards what follows
	nodes map[string]*node
	cut   map[[2]string]bool // from, to: by name
	mute  map[string]bool    // takes requests that are forwarded and never answers
}

// node is a server by name; its directory can outlive several stores.
type node struct {
	name  string
	dir   string
	store *Store // nil while down
	trans *raft.InmemTransport
	id    string // of the server that runs there
}

func newCluster(t *testing.T, names ...string) *testCluster {
	c := &testCluster{
		t: t, root: memoryDir(t), conf: func(*Config) {}, log: slog.DiscardHandler,
		nodes: map[string]*node{}, cut: map[[2]string]bool{}, mute: map[string]bool{},
	}
	t.Cleanup(c.stop)
	for i, name := range names {
		c.start(name, i == 0)
		if i > 0 {
			c.join(name)
		}
	}
	return c
}

func (c *testCluster) stop() {
	for _, n := range c.nodes {
		if n.store != nil {
			_ = n.store.close(false)
		}
	}
}

// start opens the store of a node; its directory may hold state.
func (c *testCluster) start(name string, bootstrap bool) *Store {
	c.t.Helper()
	c.mu.Lock()
	n := c.nodes[name]
	if n == nil {
		n = &node{name: name, dir: filepath.Join(c.root, name)}
		c.nodes[name] = n
	}
	c.mu.Unlock()
	cfg := Config{
		Dir: n.dir, Name: name, HTTP: name, Bootstrap: bootstrap, Logger: slog.New(c.log).With("node", name),
		CommitTimeout: 50 * time.Millisecond, Forwarder: &courier{c, name}, segmentSize: 64 << 10,
		Transport: func(id string) (raft.Transport, error) {
			_, tr := raft.NewInmemTransportWithTimeout(raft.ServerAddress(name), time.Second)
			c.mu.Lock()
			defer c.mu.Unlock()
			n.trans, n.id = tr, id
			for _, other := range c.nodes {
				if other.trans != nil {
					tr.Connect(other.trans.LocalAddr(), other.trans)
					other.trans.Connect(tr.LocalAddr(), tr)
				}
			}
			return &link{InmemTransport: tr, c: c, name: name}, nil
		},
	}
	c.conf(&cfg)
	s, err := Open(cfg)
	if err != nil {
		c.t.Fatalf("start %s: %v", name, err)
	}
	c.mu.Lock()
	n.store = s
	c.mu.Unlock()
	return s
}

// kill stops a node as a signal 9 would: nothing is handed over.
func (c *testCluster) kill(name string) {
	c.mu.Lock()
	s := c.nodes[name].store
	c.nodes[name].store = nil
	c.mu.Unlock()
	if s != nil {
		_ = s.close(false)
	}
}

// join asks the leader to take a node in, as an agent does.
func (c *testCluster) join(name string) {
	c.t.Helper()
	if err := c.tryJoin(name); err != nil {
		c.t.Fatalf("join %s: %v", name, err)
	}
}

func (c *testCluster) tryJoin(name string) error { return c.tryJoinFor(name, 200) }

func (c *testCluster) tryJoinFor(name string, tries int) error {
	s := c.node(name)
	req := JoinRequest{ServerInfo: s.self(), Addr: name, ClusterID: s.State().ClusterID()}
	var err error
	for range tries {
		if l := c.leader(); l != nil {
			if _, err = l.Join(c.t.Context(), Meta{}, req); err == nil || !errors.Is(err, ErrUnavailable) {
				return err
			}
		}
		pass(100 * time.Millisecond)
	}
	return err
}

func (c *testCluster) node(name string) *Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[name].store
}

func (c *testCluster) live() []*Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*Store
	for _, n := range c.nodes {
		if n.store != nil {
			out = append(out, n.store)
		}
	}
	return out
}

func (c *testCluster) leader() *Store {
	var best *Store
	for _, s := range c.live() {
		if s.IsLeader() && (best == nil || s.node().CurrentTerm() > best.node().CurrentTerm()) {
			best = s
		}
	}
	return best
}

// until waits, in fake time, for a condition.
func (c *testCluster) until(what string, cond func() bool) {
	c.t.Helper()
	for range 1200 {
		if cond() {
			return
		}
		pass(100 * time.Millisecond)
	}
	for _, s := range c.live() {
		c.t.Logf("%+v", s.Status())
	}
	c.t.Fatalf("after two minutes: not %s", what)
}

// settle waits until there is a leader with n voters and all have applied the
// same, and know who the voters are.
func (c *testCluster) settle(voters int) *Store {
	c.t.Helper()
	var l *Store
	c.until(fmt.Sprintf("a leader with %d voters", voters), func() bool {
		if l = c.leader(); l == nil || len(l.voters()) != voters {
			return false
		}
		for _, s := range c.live() {
			if s.position() != l.position() || s.node().LastIndex() != l.node().LastIndex() {
				return false
			}
		}
		return true
	})
	return l
}

// sever cuts or heals the links from a to b; one way.
func (c *testCluster) sever(a, b string, down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[[2]string{a, b}] = down
}

// isolate cuts a node off from all others, both ways, or heals it.
func (c *testCluster) isolate(name string, down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other := range c.nodes {
		if other != name {
			c.cut[[2]string{name, other}], c.cut[[2]string{other, name}] = down, down
		}
	}
}

// freeze makes a node what SIGSTOP makes of a process, for the others.
func (c *testCluster) freeze(name string) {
	c.isolate(name, true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mute[name] = true
}

func (c *testCluster) isMute(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mute[name]
}

func (c *testCluster) open(a, b string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.cut[[2]string{a, b}]
}

// is reports whether the node's server has the id.
func (c *testCluster) is(name, id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[name].id == id
}

var errCut = errors.New("link is cut")

// link is the transport of a node. A request over a cut link is lost; so is
// the answer if the way back is cut, but then the request was handled. A
// request for another server than the one that is there is refused, as package
// raftnet does: a wiped server must not vote for the one that it was.
type link struct {
	*raft.InmemTransport
	c    *testCluster
	name string
}

func (l *link) over(id raft.ServerID, target raft.ServerAddress, f func() error) error {
	if !l.c.open(l.name, string(target)) || !l.c.is(string(target), string(id)) {
		return errCut
	}
	if err := f(); err != nil {
		return err
	}
	if !l.c.open(string(target), l.name) {
		return errCut
	}
	return nil
}

func (l *link) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return l.over(id, target, func() error { return l.InmemTransport.AppendEntries(id, target, args, resp) })
}

func (l *link) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return l.over(id, target, func() error { return l.InmemTransport.RequestVote(id, target, args, resp) })
}

func (l *link) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return l.over(id, target, func() error { return l.InmemTransport.RequestPreVote(id, target, args, resp) })
}

func (l *link) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return l.over(id, target, func() error { return l.InmemTransport.InstallSnapshot(id, target, args, resp, data) })
}

func (l *link) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return l.over(id, target, func() error { return l.InmemTransport.TimeoutNow(id, target, args, resp) })
}

// courier is the Forwarder of a node: it calls the leader's Serve.
type courier struct {
	c    *testCluster
	name string
}

func (f *courier) Forward(ctx context.Context, leader Server, request []byte) ([]byte, error) {
	s := f.c.node(leader.HTTP)
	if f.c.isMute(leader.HTTP) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if s == nil || !f.c.open(f.name, leader.HTTP) {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, errCut)
	}
	reply, err := s.Serve(ctx, request)
	if err == nil && !f.c.open(leader.HTTP, f.name) {
		err = errCut
	}
	return reply, err
}

// pass lets an amount of the bubble's fake time go by, in which everything
// else that is due happens.
func pass(d time.Duration) { <-time.After(d) }
