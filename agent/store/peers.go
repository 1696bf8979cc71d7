package store

import (
	"errors"
	"sync"
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

	mu   sync.Mutex // guards seen
	seen map[raft.ServerID]contact
}

// contact is what the last answer of a server told.
type contact struct {
	at        time.Time
	lastIndex uint64 // of its log
	term      uint64 // its current term
	current   bool   // it accepted an entry or heartbeat of the leader's term
}

func newPeers(t raft.Transport) (*peers, error) {
	pre, ok := t.(raft.WithPreVote)
	if !ok {
		return nil, errors.New("the raft transport cannot carry pre-votes")
	}
	return &peers{Transport: t, preVote: pre, seen: map[raft.ServerID]contact{}}, nil
}

// AppendEntriesPipeline implements raft.Transport.
func (p *peers) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (p *peers) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := p.Transport.AppendEntries(id, target, args, resp)
	if err == nil {
		p.note(id, contact{at: time.Now(), lastIndex: resp.LastLog, term: resp.Term, current: resp.Success})
	}
	return err
}

// RequestPreVote implements raft.WithPreVote.
func (p *peers) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return p.preVote.RequestPreVote(id, target, args, resp)
}

func (p *peers) note(id raft.ServerID, c contact) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[id] = c
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
