package raftnet_test

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/agent/pki"
	"github.com/fluid-sd/fluid/agent/raftnet"
)

// node is a Raft server on real TCP with TLS.
type node struct {
	id    string
	name  string
	addr  string
	layer *raftnet.Layer
	trans *raft.NetworkTransport
	raft  *raft.Raft
	log   atomic.Uint64 // applied
}

func (n *node) Apply(*raft.Log) any { n.log.Add(1); return nil }

func (n *node) Snapshot() (raft.FSMSnapshot, error) { return nil, io.ErrUnexpectedEOF }

func (n *node) Restore(r io.ReadCloser) error { return r.Close() }

// open starts Raft's transport of a server at addr, with a certificate of its
// name; run its Raft.
func open(t *testing.T, b *book, auth authority, id pki.Identity, addr string) *node {
	t.Helper()
	l := start(t, b, raftnet.Config{Listener: listen(t, addr), Self: id, TLS: auth.reloader(t, pki.Identity{Name: id.Name})})
	n := &node{id: id.ID, name: id.Name, addr: l.Addr().String(), layer: l, trans: raftnet.NewTransport(l, hclog.NewNullLogger())}
	t.Cleanup(func() { n.trans.Close() })
	return n
}

func (n *node) run(t *testing.T) {
	t.Helper()
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(n.id)
	cfg.Logger = hclog.NewNullLogger()
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 200*time.Millisecond, 200*time.Millisecond, 100*time.Millisecond
	cfg.CommitTimeout = 5 * time.Millisecond
	store := raft.NewInmemStore()
	var err error
	if n.raft, err = raft.NewRaft(cfg, n, store, store, raft.NewInmemSnapshotStore(), n.trans); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.stop)
}

func (n *node) stop() {
	_ = n.raft.Shutdown().Error()
	_ = n.trans.Close()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// Three servers agree over mutual TLS. Then one comes back at its address with
// an empty disk, so with another id: nothing that Raft sends to the old one may
// reach it. Without the preamble it would be fed the log, and vote, under the
// old one's identity.
func TestCluster(t *testing.T) {
	auth, b := newAuthority(t), &book{}
	var nodes []*node
	var servers []raft.Server
	for _, name := range []string{"node1", "node2", "node3"} {
		n := open(t, b, auth, pki.Identity{ID: "id-" + name, Name: name}, "127.0.0.1:0")
		nodes = append(nodes, n)
		servers = append(servers, raft.Server{ID: raft.ServerID(n.id), Address: n.trans.LocalAddr()})
	}
	for _, n := range nodes {
		n.run(t)
	}
	if err := nodes[0].raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		t.Fatal(err)
	}
	leader := func() *node {
		for _, n := range nodes {
			if n.raft.State() == raft.Leader {
				return n
			}
		}
		return nil
	}
	write := func() bool {
		l := leader()
		return l != nil && l.raft.Apply([]byte("x"), patience).Error() == nil
	}
	eventually(t, "a write is committed", write)
	eventually(t, "all have applied it", func() bool {
		return nodes[0].log.Load() > 0 && nodes[1].log.Load() > 0 && nodes[2].log.Load() > 0
	})
	addr, id := nodes[0].raft.LeaderWithID()
	if want := leader(); string(addr) != want.addr || string(id) != want.id {
		t.Errorf("leader is known as %s at %s, want %s at %s", id, addr, want.id, want.addr)
	}

	var lost *node
	for i, n := range nodes {
		if n != leader() {
			lost = n
			nodes = append(nodes[:i:i], nodes[i+1:]...)
			break
		}
	}
	lost.stop()
	// It has the name still, and so the right certificate.
	wiped := open(t, &book{}, auth, pki.Identity{ID: "id-wiped", Name: lost.name}, lost.addr)
	var rpcs atomic.Uint64
	done := make(chan struct{})
	go func() {
		for {
			select {
			case rpc := <-wiped.trans.Consumer():
				rpcs.Add(1)
				rpc.Respond(nil, io.ErrUnexpectedEOF)
			case <-done:
				return
			}
		}
	}()
	defer close(done)
	for range 20 {
		eventually(t, "a write is committed by the two that are left", write)
	}
	eventually(t, "the leader tried to reach the lost server", func() bool { return leader() != nil && wiped.layer.Stats().Refused > 3 })
	if got := rpcs.Load(); got != 0 {
		t.Errorf("%d RPCs for the lost server reached the new one at its address", got)
	}
}
