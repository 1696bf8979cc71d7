package fluid

import (
	"fmt"
	"iter"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/record"
)

// sink takes what the feed client receives.
type sink struct{ e *engine }

var _ feed.Sink = sink{}

// Hello implements feed.Sink.
func (s sink) Hello() feed.Hello {
	e := s.e
	e.mu.Lock()
	defer e.mu.Unlock()
	h := feed.Hello{Position: e.catalog.Position(), Hash: e.catalog.Hash(), ClusterID: e.head.Cluster, Vector: e.vector(), ClientTTL: e.clientTTL(), Volatile: e.volatile || e.unsaved != nil}
	for _, z := range e.zones {
		h.Zones = append(h.Zones, z.Origin)
	}
	return h
}

// clientTTL returns the largest TTL that answers can still have in other
// caches. Called with mu held.
func (e *engine) clientTTL() time.Duration {
	ttl := e.maxTTL
	for _, z := range e.zones {
		ttl = max(ttl, time.Duration(max(z.TTL, z.staleTTL))*time.Second)
	}
	return ttl
}

// Snapshot implements feed.Sink.
func (s sink) Snapshot(pos record.Position, entries iter.Seq[record.Entry], hash uint64) error {
	e := s.e
	stage := catalog.NewStage(pos, entries)
	if stage.Hash() != hash {
		return fmt.Errorf("snapshot at %v: content hash %x, want %x", pos, stage.Hash(), hash)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.member != nil && pos.Before(e.catalog.Position()) {
		return nil // the mesh was faster
	}
	ch, err := e.catalog.Swap(stage)
	if err != nil {
		return err
	}
	e.publish(ch)
	e.confirm()
	e.rewrite()
	return nil
}

// Apply implements feed.Sink.
func (s sink) Apply(prev, pos record.Position, entries []record.Entry) error {
	e := s.e
	e.mu.Lock()
	defer e.mu.Unlock()
	prev, entries, ok := e.newer(prev, pos, entries)
	if !ok {
		e.flush() // what the mesh brought is about to be acknowledged
		return nil
	}
	ch, err := e.catalog.Apply(prev, pos, entries)
	if err != nil {
		return err
	}
	e.publish(ch)
	e.confirm()
	if e.unsaved != nil {
		e.flush()
		return nil
	}
	e.journal(prev, pos, entries)
	return nil
}

// Heartbeat implements feed.Sink.
func (s sink) Heartbeat(hb feed.Heartbeat) {
	e := s.e
	e.mu.Lock()
	defer e.mu.Unlock()
	e.learnCluster(hb.ClusterID)
	if e.volatile {
		e.rewrite()
	}
	at := e.catalog.Position()
	agentLag.Set(hb.Lag.Seconds())
	switch {
	case e.fromDisk && (hb.Behind || at != hb.Applied):
		// Only an agent that is as far as the file says that the file is right.
	case at.IsZero():
		// An agent without state has nothing to tell yet.
	default:
		e.confirm()
	}
}

// Relay implements feed.Sink.
func (s sink) Relay(frame []byte) error {
	e := s.e
	e.mu.Lock()
	defer e.mu.Unlock()
	e.merge(frame)
	e.observe(true)
	if e.file != nil && (e.volatile || e.file.AppendGossip(frame) != nil) {
		e.rewrite()
	}
	return nil
}

// State implements feed.Sink.
func (s sink) State(connected bool, err error) {
	if s.e.member == nil { // else the mesh knows better
		s.e.mu.Lock()
		s.e.observe(connected)
		s.e.mu.Unlock()
	}
	if connected {
		agentConnected.Set(1)
		log.Infof("connected to the agent at %s", s.e.options.Agent)
		return
	}
	agentConnected.Set(0)
	log.Warningf("agent: %v", err)
}
