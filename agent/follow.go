package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/record"
)

const (
	reportEvery   = time.Second           // how often a client reports without news
	reportPause   = 50 * time.Millisecond // at least, between two rounds
	reportTimeout = 2 * time.Second       // for one agent
)

// follower keeps a client in touch with the servers: it takes the committed
// state from one of them, reports to it, and turns to another one when that is
// silent or knows no leader.
type follower struct {
	agent  *Agent
	client *store.Client
	log    *slog.Logger
	feed   *feed.Client
	kick   chan struct{} // capacity 1: news of the cluster are wanted now

	mu      sync.Mutex    // guards what follows
	target  string        // base URL of the server to follow; empty: none is known
	turned  chan struct{} // closed when there is a target, again
	session net.Conn      // the last connection to follow a server on
	via     string        // base URL of session
	up      bool          // the server accepted the session
	why     error         // why nobody is followed
}

var _ feed.Sink = (*follower)(nil)

func newFollower(a *Agent, c *store.Client) (*follower, error) {
	f := &follower{agent: a, client: c, log: a.log.With("part", "follow"), kick: a.refresh, turned: make(chan struct{})}
	var err error
	f.feed, err = feed.NewClient(feed.ClientConfig{
		Dial: f.dial, MemberID: memberID(c.ServerID()), Name: a.cfg.RaftID(), Version: record.Version,
		Implementation: feed.RelayImplementation,
	}, f)
	return f, err
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.feed.Run(ctx) }) // it ends with ctx alone
	wg.Go(func() { f.adopt(ctx) })
	f.converse(ctx)
	wg.Wait()
}

// converse reports to the server that is followed, and looks for another one
// when that is needed, until ctx ends.
func (f *follower) converse(ctx context.Context) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	pause := time.NewTicker(reportPause)
	defer pause.Stop()
	for {
		members, changed := f.agent.feed.Members()
		f.guarded("asking servers", func() { f.round(ctx, members) })
		select {
		case <-changed:
		case <-f.kick:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// guarded runs f on what others sent; a panic over it is logged.
func (f *follower) guarded(what string, do func()) {
	defer func() {
		if p := recover(); p != nil {
			f.log.Error("panic", "while", what, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	do()
}

// round asks one agent after the other until a server that knows a leader has
// answered. Without a leader anywhere, the first server that answered is
// followed: it has what was committed last, as far as anybody can tell.
func (f *follower) round(ctx context.Context, members []feed.Member) {
	r := f.report(members)
	first, asked := "", map[string]bool{}
	var why []error
	for ask := append(f.candidates(), f.agent.gossiped()...); len(ask) > 0; ask = ask[1:] {
		at := ask[0]
		if asked[at] || ctx.Err() != nil {
			continue
		}
		asked[at] = true
		info, err := f.ask(ctx, at, r)
		switch {
		case errors.Is(err, store.ErrOtherCluster) && at == f.agent.cfg.Raft.JoinURL && f.client.LastContact().IsZero():
			f.agent.fail("follow", err) // that is whom the operator meant
			return
		case err != nil:
			why = append(why, fmt.Errorf("%s: %w", at, err))
		case !info.Server: // another client knows who the servers are
			ask = slices.Insert(ask, 1, f.candidates()...)
		case slices.ContainsFunc(info.Servers, func(sv api.ZonedServer) bool { return sv.Leader }):
			f.turn(at, nil)
			return
		case first == "":
			first = at
		}
	}
	if len(asked) == 0 {
		why = append(why, errors.New(f.agent.cfg.noServer()))
	}
	if ctx.Err() != nil {
		return
	}
	if first == "" {
		f.client.Lost()
	}
	f.turn(first, errors.Join(why...))
}

// ask sends a report to one agent and takes in what it says of the cluster.
func (f *follower) ask(ctx context.Context, at string, r api.ClientReport) (api.ClusterInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	c, err := f.agent.peers.to(at)
	if err != nil {
		return api.ClusterInfo{}, err
	}
	info, err := c.Report(ctx, r)
	if err != nil {
		return info, err
	}
	k := info.Store()
	if !info.Server { // what it says of the leader may be long past
		for i := range k.Servers {
			k.Servers[i].Leader = false
		}
		if len(k.Servers) == 0 || len(f.client.Servers()) > 0 && f.client.Leader().ID != "" {
			return info, nil
		}
	}
	if k.ID == "" && info.Server {
		return info, errors.New("it is part of no cluster yet")
	}
	if err := f.client.Learn(k); err != nil {
		return info, err
	}
	f.agent.tellMesh()
	return info, nil
}

func (f *follower) report(members []feed.Member) api.ClientReport {
	self := f.client.Self()
	r := api.ClientReport{
		ID: self.ID, Name: self.Name, Zone: self.Zone, ClusterID: f.client.ClusterID(),
		Roster: rosterDigest(f.client.State()), Members: make([]api.ReportedMember, len(members)),
	}
	for i, m := range members {
		r.Members[i] = api.ReportedMember{
			ID: m.ID, Name: m.Name, Applied: m.Applied.String(), Connected: m.Connected, ClientTTL: m.ClientTTL.String(),
		}
	}
	return r
}

// candidates returns whom to ask, in this order: the server that is followed,
// the other servers that are known, by chance, so that clients spread, and the
// agent that the configuration names.
func (f *follower) candidates() []string {
	f.mu.Lock()
	target := f.target
	f.mu.Unlock()
	var out []string
	if target != "" {
		out = append(out, target)
	}
	servers := f.client.Servers()
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	for _, sv := range servers {
		if sv.HTTP != "" {
			out = append(out, sv.HTTP)
		}
	}
	if u := f.agent.cfg.Raft.JoinURL; u != "" {
		out = append(out, u)
	}
	return out
}

// turn makes a server the one to follow. A session with another one ends.
func (f *follower) turn(to string, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.target == "" && to != "" {
		close(f.turned)
	} else if f.target != "" && to == "" {
		f.turned = make(chan struct{})
	}
	f.target = to
	if !f.up || why != nil {
		f.why = why
	}
	if f.up && to != "" && f.via != to {
		_ = f.session.Close() // the feed opens the next one
	}
}

// dial is feed.ClientConfig.Dial. It waits for a server to be found.
func (f *follower) dial(ctx context.Context) (net.Conn, error) {
	f.mu.Lock()
	turned := f.turned
	f.mu.Unlock()
	select {
	case <-turned:
	case <-ctx.Done():
	}
	f.mu.Lock()
	to, why := f.target, f.why
	f.mu.Unlock()
	if to == "" {
		return nil, cmp.Or(why, ctx.Err())
	}
	c, err := f.agent.peers.to(to)
	if err != nil {
		return nil, err
	}
	nc, err := c.Follow(ctx, f.agent.peers.plain(to))
	if err != nil {
		return nil, fmt.Errorf("follow %s: %w", to, err)
	}
	f.mu.Lock()
	f.session, f.via = nc, to
	f.mu.Unlock()
	return nc, nil
}

// follows returns the base URL of the server that is followed now, or why none
// is.
func (f *follower) follows() (url string, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.up {
		return "", f.why
	}
	return f.via, nil
}

// Hello implements feed.Sink.
func (f *follower) Hello() feed.Hello {
	st := f.client.State()
	return feed.Hello{Position: st.Position(), Hash: st.Hash(), ClusterID: f.client.ClusterID()}
}

// Snapshot implements feed.Sink.
func (f *follower) Snapshot(pos record.Position, entries iter.Seq[record.Entry], hash uint64) error {
	return f.client.Replace(pos, entries, hash)
}

// Apply implements feed.Sink.
func (f *follower) Apply(prev, pos record.Position, entries []record.Entry) error {
	return f.client.Apply(prev, pos, entries)
}

// Heartbeat implements feed.Sink.
func (f *follower) Heartbeat(hb feed.Heartbeat) {
	if hb.LeaderKnown && !f.client.State().Position().Before(hb.Applied) {
		f.client.Heard(time.Now().Add(-hb.Lag))
	}
}

// Relay implements feed.Sink. A client does not ask for gossip.
func (f *follower) Relay([]byte) error { return nil }

// State implements feed.Sink.
func (f *follower) State(connected bool, err error) {
	f.mu.Lock()
	via := f.via
	if f.up = connected; err != nil {
		f.why = err
	}
	f.mu.Unlock()
	if connected {
		f.log.Info("following a server", "url", via, "position", f.client.State().Position().String())
		return
	}
	f.log.Warn("following no server; what is committed stays as it was", "error", err)
	select {
	case f.kick <- struct{}{}: // is it there at all?
	default:
	}
}

// adopt takes from the mesh what it brought before a server did, until ctx
// ends. The mesh proves it with the cluster's seal.
func (f *follower) adopt(ctx context.Context) {
	v := f.agent.view
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		v.mu.RLock()
		version := v.version
		v.mu.RUnlock()
		f.guarded("adopting state of the mesh", func() {
			if err := f.adoptOnce(v); err != nil { // the feed was faster, or the cluster is not known yet
				f.log.Debug("could not adopt what the mesh brought", "error", err)
			}
		})
		select {
		case <-v.Changed(version):
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// adoptOnce brings the client to where the view is.
func (f *follower) adoptOnce(v *view) error {
	at := f.client.State().Position()
	v.mu.RLock()
	pos, hash := v.cat.Position(), v.cat.Hash()
	if !at.Before(pos) {
		v.mu.RUnlock()
		return nil
	}
	entries, ok := v.cat.Since(at)
	full := !ok || at.IsZero()
	if full {
		entries = slices.Collect(v.cat.Entries())
	}
	v.mu.RUnlock()
	if full {
		return f.client.Replace(pos, slices.Values(entries), hash)
	}
	return f.client.Apply(at, pos, entries)
}
