package agent

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/agent/pki"
	"github.com/fluid-sd/fluid/agent/raftnet"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

// auditFile, in the data directory, gets one JSON line per critical write.
const auditFile = "audit.log"

// openStore opens the data directory and starts consensus on l, which it takes
// over.
func (a *Agent) openStore(dir string, l net.Listener) error {
	s, err := store.Open(store.Config{
		Dir: dir, Logger: a.log.With("part", "store"),
		Transport: func(id string) (raft.Transport, error) { return a.raftTransport(l, id) },
		Name:      a.cfg.RaftID(), HTTP: a.httpURL, Zone: a.cfg.Zone, Version: record.Version,
		Bootstrap: a.cfg.ShouldBootstrap(), Forwarder: a.peers, Probe: a.probe,
		AuditFile:        filepath.Join(dir, auditFile),
		SnapshotInterval: a.cfg.Raft.SnapshotInterval, SnapshotThreshold: a.cfg.Raft.SnapshotThreshold,
	})
	if err != nil {
		return err
	}
	a.store = s
	a.opened.Store(s)
	a.undo.push("store", func(context.Context) error { return s.Close() })
	a.openView()
	if r := a.cfg.Raft; r.CopiesDir != "" {
		a.copies = &copies{dir: r.CopiesDir, every: r.CopiesInterval, keep: int(r.CopiesKeep), state: s.State, log: a.log}
		a.loop("copies", func(ctx context.Context) {
			if a.initialized(ctx) {
				a.copies.run(ctx)
			}
		})
	}
	if a.cfg.Raft.JoinURL != "" {
		a.loop("join", a.join)
	}
	return nil
}

// openView begins to show what is committed.
func (a *Agent) openView() {
	a.view = newView(a.store, a.log)
	a.loop("view", a.view.run)
}

// loop runs f in the background until it is undone.
func (a *Agent) loop(name string, f func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	a.undo.push(name, func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}

func (a *Agent) raftTransport(l net.Listener, id string) (raft.Transport, error) {
	self := pki.Identity{ID: id, Name: a.cfg.RaftID()}
	if certs := a.certs.raft; certs != nil {
		if err := certs.Check(self); err != nil {
			return nil, &ConfigError{"raft_tls_cert_file", a.cfg.Raft.TLSCertFile, err.Error(), "issue one for this server with fluidctl tls issue"}
		}
	}
	layer, err := raftnet.New(raftnet.Config{
		Listener: l, Advertise: a.raftAddr, Self: self, TLS: a.certs.raft, Log: a.log.With("part", "raft"),
		Cluster: func() string {
			if s := a.opened.Load(); s != nil {
				return s.State().ClusterID()
			}
			return ""
		},
		Resolve: a.resolve,
	})
	if err != nil {
		return nil, err
	}
	a.layer = layer
	return raftnet.NewTransport(layer, hclog.NewNullLogger()), nil
}

// resolve tells where a server is by the latest configuration.
func (a *Agent) resolve(id raft.ServerID) (raftnet.Remote, bool) {
	s := a.opened.Load()
	if s == nil {
		return raftnet.Remote{}, false
	}
	for _, sv := range s.Servers() {
		if sv.ID == string(id) {
			return raftnet.Remote{Addr: sv.Addr, Name: sv.Name}, true
		}
	}
	return raftnet.Remote{}, false
}

// probe calls a server back: the leader takes in only whom it can reach.
func (a *Agent) probe(ctx context.Context, sv store.Server) error {
	if err := a.layer.Probe(ctx, sv.Addr, pki.Identity{ID: sv.ID, Name: sv.Name}); err != nil {
		return fmt.Errorf("call back: %w", err)
	}
	return nil
}
