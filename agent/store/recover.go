package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// Files of a recovery by hand.
const (
	// peersFile in the data directory replaces the cluster's configuration when
	// the server starts: for a cluster that has lost its quorum for good. It is
	// a JSON array of {"id":SERVER-ID,"address":HOST:PORT,"non_voter":BOOL}.
	peersFile = "peers.json"
	// peersDone is what it is renamed to when that is done.
	peersDone = "peers.info"
)

// recoverPeers does what a peers.json in the data directory asks for: the
// servers in it are the cluster from now on. Entries of the log that were not
// committed count as committed, because nobody is left to tell. The generation
// rises, so that no member mixes what the lost servers may have acknowledged
// with what comes now. It reports whether there was such a file.
func recoverPeers(cfg *Config, d *disk, trans raft.Transport) (bool, error) {
	path := filepath.Join(cfg.Dir, peersFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	conf, err := raft.ReadConfigJSON(path)
	if err != nil {
		return false, fmt.Errorf("read %s: %w; give an array of objects with id and address", path, err)
	}
	f := &recoveryFSM{newFSM()}
	if err := raft.RecoverCluster(cfg.raft(d.dir.id), f, d.log, d.log, d.snaps, trans, conf); err != nil {
		return false, fmt.Errorf("recover with %s: %w", path, err)
	}
	if err := f.failed(); err != nil {
		return false, fmt.Errorf("recover with %s: %w", path, err)
	}
	if err := os.Rename(path, filepath.Join(cfg.Dir, peersDone)); err != nil {
		return false, fmt.Errorf("recover: %w; remove %s by hand", err, path)
	}
	cfg.Logger.Warn("recovered the cluster from a file of servers", "file", path, "servers", len(conf.Servers))
	return true, syncDir(cfg.Dir)
}

// recoveryFSM raises the generation in the snapshot that a recovery ends with.
type recoveryFSM struct{ *fsm }

// Snapshot implements raft.FSM.
func (f *recoveryFSM) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.failed(); err != nil {
		return nil, err
	}
	return &fsmSnapshot{f.current.Load().raise()}, nil
}
