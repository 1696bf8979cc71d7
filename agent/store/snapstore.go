package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// openSnapshots opens the snapshots of a data directory and returns the state
// of the newest that is whole, and its index; an empty state and 0 if there is
// none. Damaged ones are moved aside, so that Raft does not use them either:
// whether the log makes up for them, Open checks.
func openSnapshots(dir string, retain int, log hclog.Logger) (*raft.FileSnapshotStore, *state, uint64, error) {
	path := filepath.Join(dir, snapshotDir)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, nil, 0, fmt.Errorf("create snapshot directory: %w", err)
	}
	// raft.FileSnapshotStore keeps its snapshots in a directory of that name.
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, retain, log)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("open snapshots: %w", err)
	}
	for {
		metas, err := snaps.List()
		if err != nil {
			return nil, nil, 0, fmt.Errorf("list snapshots: %w", err)
		}
		if len(metas) == 0 {
			return snaps, newState(), 0, nil
		}
		s, err := loadSnapshot(snaps, metas[0].ID)
		if err == nil {
			return snaps, s, metas[0].Index, nil
		}
		log.Error("snapshot is damaged, moving it aside", "snapshot", metas[0].ID, "error", err)
		bad := filepath.Join(path, metas[0].ID)
		if rerr := os.Rename(bad, bad+".damaged.tmp"); rerr != nil {
			return nil, nil, 0, errors.Join(fmt.Errorf("%w: snapshot %s: %w", ErrCorrupt, bad, err), rerr)
		}
	}
}

func loadSnapshot(snaps raft.SnapshotStore, id string) (*state, error) {
	_, rc, err := snaps.Open(id)
	if err != nil {
		return nil, err
	}
	s, err := readSnapshot(rc)
	return s, errors.Join(err, rc.Close())
}
