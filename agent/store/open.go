package store

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/record"
)

// disk is what Open finds in a data directory.
type disk struct {
	dir   *dataDir
	mark  *mark
	log   *logStore
	snaps *snapshots
	state *state
	warm  uint64 // index up to which state is applied
}

func (d *disk) close() error {
	var errs []error
	if d.log != nil {
		errs = append(errs, d.log.Close())
	}
	if d.mark != nil {
		errs = append(errs, d.mark.close())
	}
	d.dir.close()
	return errors.Join(errs...)
}

// openDisk opens and checks everything in the data directory, and brings the
// state to where this server had applied the log before it stopped. Raft by
// itself would start from the snapshot and wait for a leader to tell what is
// committed: without a quorum the server would go back in time.
func openDisk(cfg *Config) (_ *disk, err error) {
	dir, err := openDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	d := &disk{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.mark, err = openMark(filepath.Join(cfg.Dir, markFile)); err != nil {
		return nil, err
	}
	hlog := raftLogger(cfg.Logger)
	if d.log, err = openLog(filepath.Join(cfg.Dir, walDir), cfg.segmentSize, hlog, &d.mark.applied); err != nil {
		return nil, err
	}
	var snapIndex uint64
	if d.snaps, d.state, snapIndex, err = openSnapshots(cfg.Dir, cfg.SnapshotRetain, cfg.Logger); err != nil {
		return nil, err
	}
	used, err := raft.HasExistingState(d.log, d.log, d.snaps)
	if err != nil {
		return nil, fmt.Errorf("%w: read log: %w", ErrCorrupt, err)
	}
	if err := d.dir.makeID(!used); err != nil {
		return nil, err
	}
	return d, d.replay(snapIndex)
}

// replay applies the entries after the snapshot that are known to be committed.
func (d *disk) replay(snapIndex uint64) error {
	first, err := d.log.FirstIndex()
	if err != nil {
		return fmt.Errorf("%w: read log: %w", ErrCorrupt, err)
	}
	last, err := d.log.LastIndex()
	if err != nil {
		return fmt.Errorf("%w: read log: %w", ErrCorrupt, err)
	}
	const fix = "wipe the data directory with fluid-agent reset and join again, or restore a snapshot"
	if last > snapIndex && first > snapIndex+1 {
		return fmt.Errorf("%w: the newest whole snapshot is of index %d, the log begins at %d; %s", ErrCorrupt, snapIndex, first, fix)
	}
	known := d.mark.applied.Load()
	if known > max(last, snapIndex) {
		return fmt.Errorf("%w: index %d was applied, but the log ends at %d: its tail is lost; %s", ErrCorrupt, known, max(last, snapIndex), fix)
	}
	carried, err := d.log.appliedBefore()
	if err != nil {
		return fmt.Errorf("%w: read log: %w; %s", ErrCorrupt, err, fix)
	}
	d.warm = min(max(known, carried), last)
	if d.warm <= snapIndex {
		d.warm = 0
		return nil
	}
	t := d.state.txn()
	for i := snapIndex + 1; i <= d.warm; i++ {
		var l raft.Log
		if err := d.log.GetLog(i, &l); err != nil {
			return fmt.Errorf("%w: read log entry %d: %w; %s", ErrCorrupt, i, err, fix)
		}
		if l.Type != raft.LogCommand || l.Index <= t.s.pos.Index {
			continue
		}
		t.decoded = t.decoded[:0]
		if _, err := t.applyEntry(l.Index, string(l.Data)); err != nil {
			return fmt.Errorf("replay log: %w", err)
		}
	}
	d.state = t.commit()
	return nil
}

// Open opens the data directory, restores its state, and starts Raft. The
// State is readable when Open returns, leader or not.
//
// Errors wrap ErrLocked when another process uses the directory, ErrCorrupt
// when what is in it is damaged, and tell what to do.
func Open(cfg Config) (_ *Store, err error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	d, err := openDisk(&cfg)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	trans, err := cfg.Transport(d.dir.id)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store: raft transport: %w", err), d.close())
	}
	p, err := newPeers(trans)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), d.close())
	}
	recovered, err := recoverPeers(&cfg, d, p)
	if err == nil && recovered {
		if err = d.close(); err == nil {
			d, err = openDisk(&cfg)
		}
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("open store: %w", err), p.shut())
		if d != nil {
			err = errors.Join(err, d.close())
		}
		return nil, err
	}
	s := newStore(cfg, d, p)
	if cfg.AuditFile != "" {
		if s.audit, err = openAudit(cfg.AuditFile); err != nil {
			return nil, errors.Join(fmt.Errorf("open store: %w", err), p.shut(), d.close())
		}
		s.fsm.audit = func(a *applied) { s.audit.applied(s.position().Generation, a) }
	}
	if err := s.startRaft(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), p.shut(), d.close(), s.closeAudit())
	}
	s.startLoops()
	return s, nil
}

// startRaft starts Raft on the open directory and transport.
func (s *Store) startRaft() error {
	rc := s.cfg.raft(s.disk.dir.id)
	rc.NotifyCh = s.leaderCh
	has, err := raft.HasExistingState(s.disk.log, s.disk.log, s.disk.snaps)
	if err != nil {
		return fmt.Errorf("read raft state: %w", err)
	}
	if s.cfg.Bootstrap && !has {
		err := raft.BootstrapCluster(rc, s.disk.log, s.disk.log, s.disk.snaps, s.peers, raft.Configuration{
			Servers: []raft.Server{{ID: rc.LocalID, Address: s.peers.LocalAddr()}},
		})
		if err != nil {
			return fmt.Errorf("bootstrap: %w", err)
		}
	}
	r, err := raft.NewRaft(rc, s.fsm, s.disk.log, s.disk.log, s.disk.snaps, s.peers)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	s.raft.Store(r)
	return nil
}

func (s *Store) position() record.Position { return s.fsm.state().Position() }
