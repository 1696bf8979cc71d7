package fluid

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/lastgood"
	"github.com/fluid-sd/fluid/plugin/record"
)

// loader reads a snapshot into an engine's catalog.
type loader struct {
	e     *engine
	stage *catalog.Stage
}

// Base implements lastgood.Loader.
func (l *loader) Base(pos record.Position, entries iter.Seq[record.Entry]) {
	l.stage = catalog.NewStage(pos, entries)
}

// Commit implements lastgood.Loader.
func (l *loader) Commit(hash uint64) error {
	if got := l.stage.Hash(); got != hash {
		return fmt.Errorf("%w: content hash %x, want %x", lastgood.ErrCorrupt, got, hash)
	}
	_, err := l.e.catalog.Swap(l.stage)
	return err
}

// Change implements lastgood.Loader.
func (l *loader) Change(prev, pos record.Position, entries []record.Entry) error {
	_, err := l.e.catalog.Apply(prev, pos, entries)
	return err
}

// Gossip implements lastgood.Loader.
func (l *loader) Gossip(frame []byte) { l.e.merge(frame) }

// useFile keeps the snapshot in a file from now on; "" ends that. An engine
// that knows nothing yet loads the file first, and counts as stale then.
func (e *engine) useFile(path string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if path == e.path {
		return
	}
	if e.file != nil {
		if err := e.file.Close(); err != nil {
			log.Warningf("snapshot: %v", err)
		}
	}
	e.file, e.path, e.volatile = nil, path, false
	if path == "" {
		return
	}
	if e.state.Load() != unsynced {
		e.file = lastgood.New(path)
		e.rewrite()
		return
	}
	if e.member != nil { // too late to load: the mesh works on the catalog
		e.file = lastgood.New(path)
		return
	}
	file, head, err := lastgood.Open(path, &loader{e: e})
	e.file = file
	if err != nil {
		e.catalog = catalog.New() // nothing of a file that ends wrong is used
		log.Errorf("starting without last known good: %v", err)
		if errors.Is(err, lastgood.ErrCorrupt) {
			if err := os.Rename(path, path+".corrupt"); err == nil {
				log.Errorf("the file is now %s.corrupt", path)
			}
		}
		return
	}
	if e.head.Cluster != "" && head.Cluster != "" && e.head.Cluster != head.Cluster {
		log.Errorf("snapshot %s belongs to cluster %s, not %s: not used", path, head.Cluster, e.head.Cluster)
		e.catalog, e.file = catalog.New(), lastgood.New(path)
		_ = file.Close()
		return
	}
	cluster := e.head.Cluster
	e.head = head
	if e.head.Cluster == "" {
		e.head.Cluster = cluster
	}
	if e.catalog.Position().IsZero() {
		return
	}
	e.fromDisk = true
	e.observe(false)
	e.publish(catalog.Changes{All: true})
	e.state.Store(stale)
	e.report(unsynced)
	log.Infof("loaded the last known good from %s, stale until the agent confirms it", path)
}

// rewritePause is how long a write of the snapshot that failed is not repeated.
const rewritePause = 5 * time.Second

// rewrite writes the snapshot anew. While that fails, what the engine serves
// would be lost by a restart, and the agent is not told that it was applied.
// Called with mu held.
func (e *engine) rewrite() {
	if e.file == nil || e.volatile && time.Since(e.rewritten) < rewritePause {
		return
	}
	e.rewritten, e.unsaved = time.Now(), nil
	err := e.file.Replace(e.head, lastgood.State{
		Position: e.catalog.Position(), Entries: e.catalog.Entries(), Hash: e.catalog.Hash(), Gossip: e.frames,
	})
	e.volatile = err != nil
	if err != nil {
		snapshotErrors.Inc()
		log.Errorf("%v", err)
	}
}

// journal adds a batch to the snapshot. Nothing may be added to a file that
// lacks the state before. Called with mu held.
func (e *engine) journal(prev, pos record.Position, entries []record.Entry) {
	if e.file == nil {
		return
	}
	if e.volatile || e.file.Append(prev, pos, entries) != nil {
		e.rewrite()
	}
}

// learnCluster notes the id of the cluster that the agent belongs to. Called
// with mu held.
func (e *engine) learnCluster(id string) {
	if id == "" || e.head.Cluster != "" {
		return
	}
	e.head.Cluster = id
	if !e.catalog.Position().IsZero() {
		e.rewrite()
	}
}

// memberID returns the id of this server where none is on disk: the same
// after a restart on the same machine, under the same name, by the same command
// line in the same directory. Two servers of one machine differ in the last
// two, as they cannot serve the same addresses.
func memberID(node string) string {
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil || len(strings.TrimSpace(string(machine))) == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		return clip(node) + "-" + hex.EncodeToString(b[:])
	}
	dir, _ := os.Getwd() // where it cannot be known, the command line has to do
	id := append([]string{"fluid", strings.TrimSpace(string(machine)), node, dir}, os.Args...)
	return fmt.Sprintf("%s-%016x", clip(node), xxhash.Sum64String(strings.Join(id, "\x00")))
}

// clip makes a name fit for a member id: short, and of letters that may be in
// one.
func clip(node string) string {
	node = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, node)
	return node[:min(len(node), 40)]
}
