package store

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

var (
	_ raft.Transport   = (*peers)(nil)
	_ raft.WithPreVote = (*peers)(nil)
)

// peers stands between Raft and its transport.
//
// It notes how the other servers answer, which is all that autopilot needs to
// know of them. It offers no pipeline: in raft 1.8.0 one failed AppendEntries
// can block a pipeline to that server for ever (raft issue 612). And it hides
// the transport's Close, so that Raft can be restarted on the same transport.
type peers struct {
	raft.Transport
	preVote raft.WithPreVote

	sent atomic.Uint64 // numbers the requests in the order they are sent

	mu   sync.Mutex // guards what follows
	seen map[raft.ServerID]contact
	news chan struct{} // closed and replaced when seen changes
}

// contact is what the last answer of a server told.
type contact struct {
	at        time.Time
	lastIndex uint64 // of its log
	term      uint64 // its current term
	current   bool   // it accepted an entry or heartbeat of the leader's term
	// Of the newest request that it accepted: its number and its term.
	accepted, acceptedTerm uint64
}

func newPeers(t raft.Transport) (*peers, error) {
	pre, ok := t.(raft.WithPreVote)
	if !ok {
		return nil, errors.New("the raft transport cannot carry pre-votes")
	}
	return &peers{Transport: t, preVote: pre, seen: map[raft.ServerID]contact{}, news: make(chan struct{})}, nil
}

// AppendEntriesPipeline implements raft.Transport.
func (p *peers) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (p *peers) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	number := p.sent.Add(1)
	if err := p.Transport.AppendEntries(id, target, args, resp); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.seen[id]
	c.at, c.lastIndex, c.term, c.current = time.Now(), resp.LastLog, resp.Term, resp.Success
	if resp.Success && number > c.accepted {
		c.accepted, c.acceptedTerm = number, args.Term
	}
	p.seen[id] = c
	close(p.news)
	p.news = make(chan struct{})
	return nil
}

// acceptedSince counts the servers that accepted a request of the term that
// was sent after the numbered one, and returns what tells of the next answer.
func (p *peers) acceptedSince(ids []raft.Server, number, term uint64) (n int, news <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, sv := range ids {
		if c := p.seen[sv.ID]; c.accepted > number && c.acceptedTerm == term {
			n++
		}
	}
	return n, p.news
}

// RequestPreVote implements raft.WithPreVote.
func (p *peers) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return p.preVote.RequestPreVote(id, target, args, resp)
}

func (p *peers) last(id raft.ServerID) (contact, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.seen[id]
	return c, ok
}

// shut closes the transport.
func (p *peers) shut() error {
	if c, ok := p.Transport.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}
