package agent

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Files of the origin in the data directory: who it is, and what it registered.
const (
	originFile = "origin.json"
	itemsFile  = "origin.log"
)

// origin is what this agent itself vouches for: its ephemeral instances, on
// disk before they are told to anybody. A change is drafted by the catalog,
// written and synced, and then committed to the catalog and the mesh.
type origin struct {
	dir  string
	view *view
	id   atomic.Pointer[record.OriginID] // changed by renew alone
	// created is when the first origin of the data directory was made, in
	// milliseconds since the Unix epoch.
	created int64

	mu    sync.Mutex                  // one change at a time, from draft to commit; guards what follows
	owner *catalog.Owner              // changed with the view's lock held as well
	file  *os.File                    // nil once closed
	items map[record.Key]catalog.Item // live, as on disk
	// size is how long the log is, in bytes, limit how long it may become before
	// what is not live is left out.
	size, limit int64
}

// maxDead is how many bytes the log may have beyond twice what was live.
const maxDead = 1 << 20

// originState is originFile.
type originState struct {
	ID    string `json:"id"`
	Epoch uint64 `json:"epoch"` // of the last start
	// Created is in milliseconds since the Unix epoch; 0 in files of versions
	// before this field.
	Created int64 `json:"created"`
}

// openOrigin reads the origin, begins a new epoch, durably before anybody can
// see it, and makes its instances visible.
func openOrigin(dir string, v *view, now time.Time) (*origin, error) {
	o := &origin{dir: dir, view: v}
	var err error
	if o.items, err = readItems(filepath.Join(dir, itemsFile)); err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	if err = o.rewrite(); err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	err = o.own(now, false)
	if errors.Is(err, catalog.ErrReaped) { // the clock went back
		err = o.own(now, true)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("origin: %w", err), o.file.Close())
	}
	return o, nil
}

// own begins a new epoch, of a new origin if it is to be, with the items that
// are live.
func (o *origin) own(now time.Time, anew bool) error {
	id, epoch, err := o.begin(now, anew)
	if err != nil {
		return err
	}
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails (Go 1.24)
	items := make([]catalog.Item, 0, len(o.items))
	for _, it := range o.items {
		items = append(items, it)
	}
	o.view.Update(func(c *catalog.Catalog) (ch catalog.Changes) {
		var owner *catalog.Owner
		if owner, ch, err = c.Own(now.UnixMilli(), id, epoch, binary.LittleEndian.Uint64(nonce[:])|1, items); err == nil {
			o.owner = owner
			o.id.Store(&id)
		}
		return ch
	})
	return err
}

// renew takes a new origin, which vouches for the same, in place of one that
// does not serve any more, and returns how far that was written.
func (o *origin) renew(now time.Time) (old catalog.Head, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old = catalog.Head{Origin: *o.id.Load()}
	o.view.Update(func(*catalog.Catalog) catalog.Changes {
		if !o.owner.Reaped() {
			old = o.owner.Head()
		}
		return catalog.Changes{}
	})
	return old, o.own(now, true)
}

// begin returns the origin's id, a new one if it is to be, and the epoch of
// this start.
func (o *origin) begin(now time.Time, anew bool) (id record.OriginID, epoch uint64, err error) {
	path := filepath.Join(o.dir, originFile)
	var st originState
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		anew = true
	case err != nil:
		return id, 0, err
	default:
		if err = json.Unmarshal(b, &st); err == nil {
			id, err = record.ParseOriginID(st.ID)
		}
		if err != nil {
			return id, 0, fmt.Errorf("%s is damaged: %w; remove it and %s, and register again", path, err, itemsFile)
		}
	}
	if anew {
		_, _ = rand.Read(id[:]) // never fails (Go 1.24)
		st.ID = id.String()
	}
	st.Epoch = max(st.Epoch+1, uint64(now.UnixMilli()))
	if st.Created == 0 {
		st.Created = now.UnixMilli()
	}
	if o.created == 0 {
		o.created = st.Created
	}
	if b, err = json.Marshal(st); err != nil {
		return id, 0, err
	}
	return id, st.Epoch, replaceFile(path, append(b, '\n'))
}

// rewrite leaves only what is live in the log.
func (o *origin) rewrite() error {
	var b []byte
	for _, it := range o.items {
		b = appendFrame(b, it)
	}
	path := filepath.Join(o.dir, itemsFile)
	if err := replaceFile(path, b); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if o.file != nil {
		_ = o.file.Close() // it has no name any more
	}
	o.file, o.size = f, int64(len(b))
	o.limit = 2*o.size + maxDead
	return nil
}

// change drafts, writes and commits one change. draft runs with the catalog
// locked and reports whether there is anything to do.
func (o *origin) change(draft func(now int64, ow *catalog.Owner) (catalog.Item, bool, error), durable bool) (catalog.Item, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var it catalog.Item
	var changed bool
	var err error
	now := time.Now().UnixMilli()
	try := func() (reaped bool) {
		o.view.Update(func(*catalog.Catalog) catalog.Changes {
			if reaped = o.owner.Reaped(); !reaped {
				it, changed, err = draft(now, o.owner)
			}
			return catalog.Changes{}
		})
		return reaped
	}
	if try() {
		if err := o.own(time.UnixMilli(now), true); err != nil {
			return it, false, fmt.Errorf("origin: %w", err)
		}
		try()
	}
	if err != nil || !changed {
		return it, false, err
	}
	if !it.Bounded() { // nobody would take it in, nor would the next start
		return it, false, fmt.Errorf("%w: %s has %d bytes encoded; keep it to %d", record.ErrTooLarge, it.Key, len(it.Value), record.MaxEncoded)
	}
	if durable {
		if err := o.save(it); err != nil {
			return it, false, err
		}
	}
	return o.view.commitOwn(now, o.owner, it), true, nil
}

// save writes an item to the log. After a failure the log is written anew: a
// frame may be there in part, or the file that is open may not be the log.
func (o *origin) save(it catalog.Item) error {
	if o.file == nil {
		return fmt.Errorf("write %s: %w", itemsFile, os.ErrClosed)
	}
	frame := appendFrame(nil, it)
	if o.size+int64(len(frame)) > o.limit {
		if err := o.rewrite(); err != nil {
			o.limit = 0
			return fmt.Errorf("rewrite %s: %w", itemsFile, err)
		}
	}
	_, err := o.file.Write(frame)
	if err = errors.Join(err, o.file.Sync()); err != nil {
		o.limit = 0
		return fmt.Errorf("write %s: %w", itemsFile, err)
	}
	o.size += int64(len(frame))
	if it.Deleted {
		delete(o.items, it.Key)
	} else {
		o.items[it.Key] = it
	}
	return nil
}

// register takes an explicit registration.
func (o *origin) register(in *record.Instance) (catalog.Item, bool, error) {
	return o.change(func(now int64, ow *catalog.Owner) (catalog.Item, bool, error) { return ow.Register(now, in) }, true)
}

// update changes a registered instance by edit.
func (o *origin) update(service, id string, edit func(*record.Instance)) (catalog.Item, bool, error) {
	return o.change(func(now int64, ow *catalog.Owner) (catalog.Item, bool, error) {
		it, ok := ow.Instance(service, id)
		if !ok {
			return it, false, catalog.ErrUnregistered
		}
		in, err := record.DecodeInstance(it.Value)
		if err != nil {
			return it, false, err
		}
		edit(&in)
		if err := in.Validate(); err != nil {
			return it, false, err
		}
		return ow.Update(now, &in)
	}, true)
}

// withdraw removes a record.
func (o *origin) withdraw(key record.Key) (catalog.Item, error) {
	it, _, err := o.change(func(now int64, ow *catalog.Owner) (catalog.Item, bool, error) {
		it, err := ow.Withdraw(now, key)
		return it, err == nil, err
	}, true)
	return it, err
}

// head returns how far the origin was written.
func (o *origin) head() (h catalog.Head) {
	o.view.Update(func(*catalog.Catalog) catalog.Changes {
		if !o.owner.Reaped() {
			h = o.owner.Head()
		}
		return catalog.Changes{}
	})
	return h
}

// close closes the log.
func (o *origin) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	o.file = nil
	return err
}

// tend describes this node to the others, withdraws what lost or expired, and
// lets time pass in the catalog, until ctx ends.
func (a *Agent) tend(ctx context.Context) {
	tick := time.NewTicker(advance)
	defer tick.Stop()
	for {
		a.tendOnce(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) tendOnce(now time.Time) {
	ms := now.UnixMilli()
	a.view.Update(func(c *catalog.Catalog) catalog.Changes {
		if a.mesh.Load() == nil { // nobody else says so
			c.ObserveMember(ms, a.meshID(), catalog.MemberAlive)
		}
		c.Collect(ms)
		return c.Advance(ms)
	})
	node := a.node()
	if _, _, err := a.origin.change(func(now int64, ow *catalog.Owner) (catalog.Item, bool, error) {
		it, changed := ow.Describe(now, &node)
		return it, changed, nil
	}, false); err != nil {
		a.log.Error("this node could not be described to the others", "error", err)
	}
	a.tellConflicts()
	for _, key := range append(a.origin.over(ms), a.staleReports()...) {
		if _, err := a.origin.withdraw(key); err != nil && !errors.Is(err, catalog.ErrUnregistered) {
			a.log.Error("could not withdraw a record", "key", string(key), "error", err)
		}
	}
}

// over returns what has to be withdrawn: what another claim or a fence beat,
// and what expired.
func (o *origin) over(now int64) (keys []record.Key) {
	o.view.Update(func(*catalog.Catalog) catalog.Changes {
		if !o.owner.Reaped() {
			keys = o.owner.Obligations(now)
		}
		return catalog.Changes{}
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, it := range o.items {
		if key.Kind() != record.KindInstance {
			continue
		}
		if in, err := record.DecodeInstance(it.Value); err == nil && in.Expires != 0 && in.Expires <= now {
			keys = append(keys, key)
		}
	}
	return keys
}

func (a *Agent) meshID() string { return memberID(a.store.ServerID()) }

// memberID returns the id in the mesh of the agent with a server id.
func memberID(server string) string { return "agent-" + server }
