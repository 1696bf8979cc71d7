package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Parts in consensus: Config.Raft.Role once auto is decided.
const (
	roleAuto   = "auto"
	roleServer = "server"
	roleClient = "client"
)

// roleFile, in the data directory, remembers that the cluster had servers
// enough when this agent wanted to be one.
const roleFile = "raft-role"

// Run starts an agent and keeps it until ctx ends, then stops it, for at most
// patience. It returns why it could not start, what failed, or why it could not
// stop. An agent that wants to be a server where there are enough is stopped
// and started again as a client, unless it has the log of a server: what that
// acknowledged is nothing to forget without being told to.
func Run(ctx context.Context, cfg Config, log *slog.Logger, patience time.Duration) error {
	for {
		a, err := Start(ctx, cfg, log)
		if err != nil {
			return err
		}
		var failure error
		select {
		case <-ctx.Done():
			log.Info("stopping")
		case failure = <-a.Failed():
		}
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		err = a.Stop(stopCtx)
		cancel()
		if err != nil || !errors.Is(failure, store.ErrFull) || cfg.Raft.Role != roleAuto {
			return errors.Join(failure, err)
		}
		if err := cfg.settle(failure, log); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// settle makes the data directory of an agent that stopped for want of a place
// that of a client.
func (c *Config) settle(full error, log *slog.Logger) error {
	dir := c.DataDirOrDefault()
	used, err := store.HasServerState(dir, log)
	if err != nil {
		return errors.Join(full, err)
	}
	if used {
		return fmt.Errorf("%w, and %s is the data directory of a server that is none of them any more; wipe it with fluid-agent reset for a client, or set FLUID_RAFT=server for one server more", full, dir)
	}
	log.Info("the cluster has enough servers; going on as a client, also after a restart, until FLUID_RAFT=server", "reason", full)
	return os.WriteFile(filepath.Join(dir, roleFile), []byte(roleClient+"\n"), 0o600)
}

// role decides what auto means for a data directory. A directory that holds a
// server's log is a server's; see Run for one that remembers otherwise; and who
// is told of the mesh, but of nothing that a server needs, is a client.
func (c *Config) role(dir string, log *slog.Logger) (string, error) {
	if c.Raft.Role != roleAuto {
		return c.Raft.Role, nil
	}
	used, err := store.HasServerState(dir, log)
	if used || err != nil {
		return roleServer, err
	}
	b, err := os.ReadFile(filepath.Join(dir, roleFile))
	switch {
	case err == nil && strings.TrimSpace(string(b)) == roleClient && (c.Raft.Bootstrap == nil || !*c.Raft.Bootstrap):
		return roleClient, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("data directory: %w", err)
	}
	if r := c.Raft; len(c.Gossip.Seeds) > 0 && r.JoinURL == "" && r.Bootstrap == nil && r.Bind == "" && r.Advertise == "" && r.TLSCertFile == "" {
		return roleClient, nil
	}
	return roleServer, nil
}

// findsServers reports whether a client can find a server by this
// configuration.
func (c *Config) findsServers() bool {
	return c.Raft.JoinURL != "" || len(c.Gossip.Seeds) > 0 && c.Gossip.Impl != "inmemory"
}

// noServer says why a client knows nobody to ask.
func (c *Config) noServer() string {
	switch {
	case !c.findsServers():
		return "nothing tells where a server is: set RAFT_JOIN_URL, or GOSSIP_SEEDS together with GOSSIP_IMPL=crdt"
	case c.Insecure:
		return "the mesh tells of no agent yet"
	}
	return "the mesh tells of no agent yet whose address can be trusted: on this host, or https under TLS_CA_FILE; or set RAFT_JOIN_URL"
}

// isClient reports whether this agent is a client.
func (a *Agent) isClient() bool { return a.follower != nil }

// clusterID returns the id of the cluster, empty if it is not known. A client
// may know it before it has any state.
func (a *Agent) clusterID() string {
	if a.isClient() {
		return a.follower.client.ClusterID()
	}
	return a.store.State().ClusterID()
}

// tellMesh tells the mesh of a client the id of the cluster once it is known.
func (a *Agent) tellMesh() {
	if p := a.mesh.Load(); p != nil {
		(*p).SetCluster(a.clusterID())
	}
}

// openClient opens the data directory of a client and begins to follow.
func (a *Agent) openClient(dir string) error {
	a.refresh = make(chan struct{}, 1)
	c, err := store.OpenClient(store.ClientConfig{
		Dir: dir, Logger: a.log.With("part", "store"), Forwarder: a.peers,
		Name: a.cfg.RaftID(), HTTP: a.httpURL, Zone: a.cfg.Zone, Version: record.Version,
		Refresh: func() {
			select {
			case a.refresh <- struct{}{}:
			default:
			}
		},
	})
	if errors.Is(err, store.ErrServerState) {
		return &ConfigError{"raft", a.cfg.Raft.Role, "does not fit: " + err.Error(), "use server or auto"}
	}
	if err != nil {
		return err
	}
	a.store = c
	a.undo.push("store", func(context.Context) error { return c.Close() })
	if a.follower, err = newFollower(a, c); err != nil {
		return err
	}
	a.openView()
	return nil
}
