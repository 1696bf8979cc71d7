package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/raftnet"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/mesh/transport"
	"github.com/fluid-sd/fluid/plugin/record"
)

// stopTimeout bounds the part of Start that undoes a failed start.
const stopTimeout = 10 * time.Second

// Agent is a running agent. All methods may be called from any goroutine.
type Agent struct {
	cfg  Config
	log  *slog.Logger
	http http.Handler

	store  committed
	opened atomic.Pointer[store.Store] // of a server, for Raft's connections, which come before
	certs  certificates
	layer  *raftnet.Layer // nil on a client
	peers  *peers
	view   *view
	feed   *feed.Server
	origin *origin
	checks *checks
	copies *copies                   // nil without any
	mesh   atomic.Pointer[mesh.Mesh] // nil until the cluster is known, and after a leave
	meshMu sync.Mutex                // one change of mesh or ring at a time
	ring   *transport.Keyring        // of the mesh; nil without keys
	met    chan struct{}             // capacity 1: the mesh met somebody, or lost him

	cloned chan record.OriginID // capacity 1: see noteClone
	reaped atomic.Uint64        // origins that this agent reaped

	hidden atomic.Pointer[[]record.Key] // own instances that the class hides

	vouched    []mesh.Report // what the mesh was told of the DNS members here; of keepRoster
	vouchedTo  *mesh.Mesh
	badReports atomic.Uint64 // positions that DNS members of the mesh cannot have applied

	follower  *follower     // keeps a client in touch with the servers; nil on a server
	refresh   chan struct{} // capacity 1: a client wants to know who leads
	clients   *clients      // that report to this server
	followers *feed.Server  // serves them; nil on a client
	handoff   *handoff      // their connections

	refused       atomic.Uint64          // registrations that the mesh has no room for
	joinErr       atomic.Pointer[string] // why joining has failed so far
	raftAddr      string                 // that other servers are told; empty on a client
	httpURL       string                 // that other agents are told
	socket, admin string
	handler       atomic.Pointer[http.Handler] // nil while state is restored
	failed        chan error                   // the first failure of a background part
	stopping      chan struct{}                // closed when Stop begins
	undo          stack
	stopOnce      sync.Once
	stopped       error
}

// Start opens the data directory, restores its state, listens, and serves.
// It returns when the agent is restored and reachable, leader or not. On an
// error everything that was opened is closed again. The error wraps a
// *ConfigError where a setting is to blame.
func Start(ctx context.Context, cfg Config, log *slog.Logger) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, log: log, failed: make(chan error, 1), stopping: make(chan struct{}), met: make(chan struct{}, 1), cloned: make(chan record.OriginID, 1), clients: newClients()}
	if err := a.start(ctx); err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return nil, errors.Join(err, a.Stop(stopCtx))
	}
	return a, nil
}

func (a *Agent) start(ctx context.Context) error {
	dir := a.cfg.DataDirOrDefault()
	last := readAddresses(dir)
	httpL, err := listen(ctx, "http_bind", a.cfg.HTTPBind, DefaultHTTPBind, last.HTTP, a.log)
	if err != nil {
		return err
	}
	a.undo.push("http listener", func(context.Context) error { return ignoreClosed(httpL.Close()) })
	role, err := a.cfg.role(dir, a.log)
	if err != nil {
		return err
	}
	var raftL net.Listener
	if role == roleServer {
		if raftL, err = listen(ctx, "raft_bind", a.cfg.Raft.Bind, DefaultRaftBind, last.Raft, a.log); err != nil {
			return err
		}
		a.undo.push("raft listener", func(context.Context) error { return ignoreClosed(raftL.Close()) })
		last.Raft = raftL.Addr().String()
		a.raftAddr = cmp.Or(a.cfg.Raft.Advertise, last.Raft)
	}
	socketL, adminL, err := a.listenSockets()
	if err != nil {
		return err
	}
	if err := a.openCertificates(); err != nil {
		return err
	}
	if a.peers, err = newPeers(&a.cfg); err != nil {
		return err
	}
	a.undo.push("connections to other agents", func(context.Context) error { a.peers.close(); return nil })
	a.httpURL = a.baseURL(httpL.Addr().String())
	if err := a.serveHTTP(httpL, adminL); err != nil { // answers "restoring" until the store is open
		return err
	}
	if role == roleServer {
		err = a.openStore(dir, raftL)
	} else {
		err = a.openClient(dir)
	}
	if err != nil {
		return err
	}
	if err := (addresses{HTTP: httpL.Addr().String(), Raft: last.Raft, Gossip: last.Gossip}).write(dir); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := a.serveFeed(socketL); err != nil {
		return err
	}
	if a.isClient() {
		a.loop("follow", a.follower.run)
	} else if err := a.serveClients(); err != nil {
		return err
	}
	a.loop("roster", a.keepRoster)
	if a.origin, err = openOrigin(dir, a.view, time.Now()); err != nil {
		return err
	}
	a.undo.push("origin", func(context.Context) error { return a.origin.close() })
	if err := a.openChecks(dir); err != nil {
		return err
	}
	a.loop("checks", a.runChecks)
	a.loop("origin", a.tend)
	if a.ring, err = keyring(a.cfg.Gossip.KeyHex); err != nil {
		return err
	}
	if a.ring != nil && a.cfg.Gossip.KeyFile != "" {
		a.loop("key file", a.followKeys)
	}
	if a.cfg.Gossip.Impl != string(mesh.InMemory) {
		a.loop("mesh", a.runMesh)
		a.loop("reaper", a.reap)
	}
	if err := a.openHandler(); err != nil {
		return err
	}
	pos := a.store.State().Position()
	a.log.Info("agent started", "version", record.Version, "role", role, "http", a.httpURL, "raft", a.raftAddr,
		"socket", a.socket, "data", dir, "position", pos.String(), "cluster", a.clusterID())
	return nil
}

// baseURL returns what other agents are told of the HTTP interface.
func (a *Agent) baseURL(bound string) string {
	addr := a.cfg.HTTPAdvertise
	if addr == "" {
		addr = bound
	}
	if a.cfg.TLSCertFile != "" {
		return "https://" + addr
	}
	return "http://" + addr
}

func (a *Agent) listenSockets() (feedL, adminL net.Listener, err error) {
	path, id := a.cfg.SocketOrDefault(), a.cfg.RaftID()
	feedL, err = listenSocket(path, a.cfg.Socket == "", id, a.log)
	if err != nil {
		return nil, nil, err
	}
	a.undo.push("feed socket", func(context.Context) error { return ignoreClosed(feedL.Close()) })
	adminL, err = listenSocket(filepath.Join(filepath.Dir(path), "admin.sock"), true, id, a.log)
	if err != nil {
		return nil, nil, err
	}
	a.undo.push("admin socket", func(context.Context) error { return ignoreClosed(adminL.Close()) })
	a.socket, a.admin = feedL.Addr().String(), adminL.Addr().String()
	return feedL, adminL, nil
}

func (a *Agent) serveFeed(l net.Listener) error {
	f, err := feed.NewServer(feed.ServerConfig{
		Source: source{a.store, a.view}, Relay: a.view, Implementation: a.cfg.Gossip.Impl, Version: record.Version,
		Logger: a.log.With("part", "feed"),
	})
	if err != nil {
		return err
	}
	a.feed = f
	a.undo.push("feed", func(context.Context) error { f.Stop(); return nil })
	go func() { a.fail("feed", f.Serve(l)) }()
	return nil
}

// serveHTTP serves at once: while state is restored, which takes some seconds
// for a million instances, monitors and clients are told so.
func (a *Agent) serveHTTP(l, admin net.Listener) error {
	starting := api.Starting()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := a.handler.Load(); p != nil {
			(*p).ServeHTTP(w, r)
			return
		}
		starting.ServeHTTP(w, r)
	})
	if a.certs.http != nil {
		l = tls.NewListener(l, a.certs.http.ServerConfig("h2", "http/1.1"))
	}
	for _, s := range []struct {
		name string
		l    net.Listener
		h    http.Handler
	}{{"http", l, h}, {"admin", admin, api.WithPrincipal(h, "admin.sock")}} {
		srv := &http.Server{
			Handler:           s.h,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       30 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		}
		a.undo.push(s.name, func(ctx context.Context) error {
			// Requests in flight get a moment, long-polls are cut.
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			if err := srv.Shutdown(ctx); err != nil {
				return ignoreClosed(srv.Close())
			}
			return nil
		})
		go func() {
			if err := srv.Serve(s.l); !errors.Is(err, http.ErrServerClosed) {
				a.fail(s.name, err)
			}
		}()
	}
	return nil
}

func (a *Agent) openHandler() error {
	shared, err := raftMetrics()
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	reg := prometheus.NewRegistry()
	if err := a.registerMetrics(reg); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	var follow func(net.Conn)
	if !a.isClient() {
		follow = a.handoff.give
	}
	a.http = api.New(api.Config{
		Follow: follow, Report: a.report,
		Writer: writer{a.store, a}, View: a.view, Cluster: a.store, Ephemeral: a, Checks: a, Mesh: a, State: a.store.State, Raft: a.raft, Ready: a.ready,
		Everywhere: a.everywhere, Local: a.local, Members: a.members, News: a.view.News, Zones: a.zones, JoinSecret: a.cfg.Raft.JoinSecret, Stopping: a.stopping,
		Metrics: reg, Gatherer: prometheus.Gatherers{reg, shared},
		Node: a.cfg.NodeName(), Version: record.Version, Token: a.cfg.Token, Log: a.log, Now: time.Now,
	})
	a.handler.Store(&a.http)
	return nil
}

// fail reports that a background part ended by itself.
func (a *Agent) fail(part string, err error) {
	if err == nil {
		return
	}
	select {
	case a.failed <- fmt.Errorf("%s: %w", part, err):
	default: // the first one counts
	}
}

// Failed yields the failure of a part that the agent cannot do without. The
// caller should stop the agent then. One that wraps store.ErrFull says that the
// agent should be started again as a client; Run does both.
func (a *Agent) Failed() <-chan error { return a.failed }

// HTTP returns the base URL of the HTTP interface.
func (a *Agent) HTTP() string { return a.httpURL }

// Socket returns the path of the feed socket.
func (a *Agent) Socket() string { return a.socket }

// Admin returns the path of the socket with the HTTP interface.
func (a *Agent) Admin() string { return a.admin }

// Stop closes everything in reverse order. It blocks until that is done or ctx
// ends; a part that is stuck is left behind. Later calls return what the first
// one did.
func (a *Agent) Stop(ctx context.Context) error {
	a.stopOnce.Do(func() {
		close(a.stopping)
		a.stopped = a.undo.unwind(ctx)
	})
	return a.stopped
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
