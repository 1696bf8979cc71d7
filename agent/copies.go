package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
)

// Names of copies sort by their time: fluid-20261123T124600.000Z-GENERATION-INDEX.snap.
const (
	copyPrefix = "fluid-"
	copySuffix = ".snap"
	copyTime   = "20060102T150405.000Z"
	// copyPart is what a copy is called while it is written.
	copyPart = ".part"
)

// copies writes a snapshot of what is committed to a directory now and then,
// and keeps the newest ones. Nothing but its own files is touched there.
type copies struct {
	dir   string
	every time.Duration
	keep  int
	state func() store.State
	log   *slog.Logger

	mu   sync.Mutex // guards what follows
	last time.Time  // when what is committed was last found or put there; zero: never
	err  error      // of the last attempt
}

// copyRetry is how soon an attempt that failed is repeated.
const copyRetry = time.Minute

// run copies until ctx ends. Without a copy, or with one that is older than
// every, it begins at once: an agent that restarts often still copies.
func (c *copies) run(ctx context.Context) {
	var due time.Time
	if names, err := c.list(); err == nil && len(names) > 0 {
		last := timeOfCopy(names[len(names)-1])
		c.note(last, nil)
		due = last.Add(c.every)
	}
	for {
		t := time.NewTimer(time.Until(due))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		now := time.Now()
		err := c.copy(now)
		if _, before := c.status(); err != nil && before == nil {
			c.log.Warn("no copy of the snapshot", "directory", c.dir, "error", err)
		}
		c.note(now, err)
		due = now.Add(c.every)
		if err != nil {
			due = now.Add(min(c.every, copyRetry))
		}
	}
}

// note remembers what came of an attempt.
func (c *copies) note(at time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err = err; err == nil {
		c.last = at
	}
}

func (c *copies) status() (last time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.err
}

// copy writes one copy and removes what is too many. A state that the newest
// copy holds already is not written again, for copies of one state would push
// out older ones.
func (c *copies) copy(now time.Time) error {
	st := c.state()
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	names, err := c.list()
	if err != nil {
		return err
	}
	at := fmt.Sprintf("-%d-%d%s", st.Position().Generation, st.Position().Index, copySuffix)
	if len(names) > 0 && strings.HasSuffix(names[len(names)-1], at) {
		return nil
	}
	name := copyPrefix + now.UTC().Format(copyTime) + at
	if err := writeCopy(filepath.Join(c.dir, name), st); err != nil {
		return err
	}
	names = append(names, name)
	slices.Sort(names)
	for _, old := range names[:max(0, len(names)-c.keep)] {
		if err := os.Remove(filepath.Join(c.dir, old)); err != nil {
			return err
		}
	}
	return nil
}

// list returns the names of the copies, oldest first, and removes what an
// attempt that was cut short has left.
func (c *copies) list() ([]string, error) {
	files, err := os.ReadDir(c.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		name, part := strings.CutSuffix(f.Name(), copyPart)
		switch {
		case timeOfCopy(name).IsZero():
		case part:
			_ = os.Remove(filepath.Join(c.dir, f.Name())) // the next attempt overwrites it anyway
		default:
			names = append(names, name)
		}
	}
	return names, nil
}

// timeOfCopy returns when a copy was made, or zero for the name of another file.
func timeOfCopy(name string) time.Time {
	rest, ours := strings.CutPrefix(name, copyPrefix)
	stamp, _, _ := strings.Cut(rest, "-")
	at, err := time.Parse(copyTime, stamp)
	if !ours || err != nil || !strings.HasSuffix(name, copySuffix) {
		return time.Time{}
	}
	return at
}

// writeCopy writes a state to a file, which is there whole or not at all, and
// reads it back: a copy that cannot be read is none.
func writeCopy(path string, st store.State) (err error) {
	part := path + copyPart
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600) // it holds the cluster's key
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part)
		}
	}()
	if err := st.WriteSnapshot(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if _, err := f.Seek(0, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	if _, err := api.InspectSnapshot(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// check says what an operator should know of the copies.
func (c *copies) check() string {
	last, err := c.status()
	switch {
	case err != nil:
		return "FAILED: " + err.Error()
	case last.IsZero():
		return "none yet"
	}
	return "up to date at " + last.UTC().Format(time.RFC3339)
}
