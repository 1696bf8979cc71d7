package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/lastgood"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Files of a client in the data directory: who it is and whom it follows, and
// the committed state as it last was.
const (
	clientFile = "client.json"
	clientLast = "client.state"
)

// ErrServerState is returned by OpenClient for a data directory in which a
// server has voted or written its log: a client beside it would forget what
// that server has acknowledged.
var ErrServerState = errors.New("the data directory is that of a server")

// identity is clientFile.
type identity struct {
	ID      string         `json:"id"`
	Cluster string         `json:"cluster"`
	Servers []clientServer `json:"servers"`
}

type clientServer struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Addr string `json:"addr"`
	HTTP string `json:"http"`
	Zone string `json:"zone,omitempty"`
}

// HasServerState reports whether the data directory is that of a server that
// has been part of a cluster. It returns an error that wraps ErrLocked if an
// agent uses the directory.
func HasServerState(dir string, log *slog.Logger) (bool, error) {
	if _, err := os.Stat(filepath.Join(dir, walDir)); err != nil {
		return false, nil //nolint:nilerr // no log, or none that this user may read: opening it says why
	}
	lock, err := lockDir(dir)
	if err != nil {
		return false, err
	}
	defer func() { _ = lock.Close() }()
	return usedLog(dir, log), nil
}

// usedLog reports whether the log of a locked directory was ever used. One that
// cannot be read was.
func usedLog(dir string, log *slog.Logger) bool {
	if _, err := os.Stat(filepath.Join(dir, walDir)); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if names, err := (&snapshots{dir: filepath.Join(dir, snapshotDir)}).names(); err == nil && len(names) > 0 {
		return true
	}
	l, err := openLog(filepath.Join(dir, walDir), segmentSize, raftLogger(log), new(atomic.Uint64))
	if err != nil {
		return true
	}
	used, err := raft.HasExistingState(l, l, raft.NewDiscardSnapshotStore())
	return errors.Join(err, l.Close()) != nil || used
}

// OpenClient opens the data directory of a client and restores what it had.
// Errors wrap ErrLocked when another process uses the directory, and
// ErrServerState when it holds more than a client may forget.
func OpenClient(cfg ClientConfig) (*Client, error) {
	if cfg.Dir == "" || cfg.Logger == nil || cfg.Forwarder == nil {
		return nil, errors.New("open client: Dir, Logger and Forwarder must be set")
	}
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = 5 * time.Second
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w; create it for this user, or choose another with FLUID_DATA_DIR", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open client %s: %w", cfg.Dir, err)
	}
	c := &Client{cfg: cfg, log: cfg.Logger, fsm: newFSM(), dir: lock}
	if err := c.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open client %s: %w", cfg.Dir, err), lock.Close())
	}
	c.writes = writes{timeout: cfg.WriteTimeout, execute: c.commit}
	c.remote = remote{forwarder: cfg.Forwarder, leader: c.Leader, cluster: c.ClusterID}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// load reads the directory.
func (c *Client) load() error {
	if usedLog(c.cfg.Dir, c.log) {
		return fmt.Errorf("%w: %s; remove the server from its cluster and wipe it with fluid-agent reset, or run it as a server", ErrServerState, c.cfg.Dir)
	}
	var known identity
	path := filepath.Join(c.cfg.Dir, clientFile)
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &known)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s: %w; %s", ErrCorrupt, path, err, resetFix)
	}
	k := Cluster{ID: known.Cluster}
	for _, sv := range known.Servers {
		k.Servers = append(k.Servers, Server{ID: sv.ID, Name: sv.Name, Addr: sv.Addr, HTTP: sv.HTTP, Zone: sv.Zone})
	}
	c.cluster.Store(&k)
	c.self = ServerInfo{ID: known.ID, Name: c.cfg.Name, HTTP: c.cfg.HTTP, Zone: c.cfg.Zone, Version: c.cfg.Version}
	if c.self.ID == "" {
		if c.self.ID, err = ReadServerID(c.cfg.Dir); err != nil { // of a server that was never taken in
			var raw [16]byte
			_, _ = rand.Read(raw[:]) // never fails
			c.self.ID = hex.EncodeToString(raw[:])
		}
		if err := c.writeIdentity(); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	c.loadState()
	return nil
}

// loadState reads the state that was kept. One that is damaged, or of another
// cluster, is worth nothing: a server has it.
func (c *Client) loadState() {
	l := &clientLoader{state: &state{}}
	path := filepath.Join(c.cfg.Dir, clientLast)
	file, head, err := lastgood.Open(path, l)
	if err == nil && head.Cluster != c.ClusterID() {
		err, file = fmt.Errorf("it is of cluster %q", head.Cluster), lastgood.New(path)
	}
	c.file = file
	if err != nil {
		c.log.Warn("the state that was kept cannot be used; a server has it", "file", path, "error", err)
		return
	}
	if l.state.pos.IsZero() {
		return
	}
	l.state.cluster.id = head.Cluster
	c.fsm.current.Store(l.state)
}

// clientLoader rebuilds a state from the file.
type clientLoader struct{ base, state *state }

var _ lastgood.Loader = (*clientLoader)(nil)

// Base implements lastgood.Loader.
func (l *clientLoader) Base(pos record.Position, entries iter.Seq[record.Entry]) {
	l.base = fullState(pos, entries)
}

// Commit implements lastgood.Loader.
func (l *clientLoader) Commit(hash uint64) error {
	if l.base.hash != hash {
		return fmt.Errorf("%w: its content hash is %x, not %x", ErrCorrupt, l.base.hash, hash)
	}
	l.state = l.base
	return nil
}

// Change implements lastgood.Loader.
func (l *clientLoader) Change(prev, pos record.Position, entries []record.Entry) error {
	if prev != l.state.pos || !prev.Before(pos) {
		return fmt.Errorf("changes from %s to %s do not follow %s", prev, pos, l.state.pos)
	}
	l.state = l.state.advance(pos, entries)
	return nil
}

// Gossip implements lastgood.Loader. A client keeps none.
func (l *clientLoader) Gossip([]byte) {}

// rewrite writes the whole state anew. It is called with mu held.
func (c *Client) rewrite() error {
	st := c.State()
	return c.file.Replace(lastgood.Head{Member: c.self.ID, Cluster: st.ClusterID()},
		lastgood.State{Position: st.Position(), Entries: st.Entries(), Hash: st.Hash()})
}

// writeIdentity writes who this client is and whom it can follow.
func (c *Client) writeIdentity() error {
	k := c.cluster.Load()
	id := identity{ID: c.self.ID, Cluster: k.ID, Servers: make([]clientServer, len(k.Servers))}
	for i, sv := range k.Servers {
		id.Servers[i] = clientServer{sv.ID, sv.Name, sv.Addr, sv.HTTP, sv.Zone}
	}
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeDurably(filepath.Join(c.cfg.Dir, clientFile), append(b, '\n'))
}

// disk reports what became of a write to disk, once per different reason. The
// state in memory goes on without it. It is called with mu held.
func (c *Client) disk(err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	if why != "" && why != c.said {
		c.log.Warn("what the cluster agreed on cannot be kept on disk; a restart will need a server", "error", err)
	}
	c.said = why
}

// Close ends requests that wait, and closes the files. Later calls do nothing.
func (c *Client) Close() error {
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	return errors.Join(c.file.Close(), c.dir.Close())
}
