package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/check"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// checksFile, in the data directory, holds what is to be checked.
const checksFile = "checks.json"

const (
	// checkGrace is how long an instance may be missing before its checks end:
	// one that was committed elsewhere comes a little later.
	checkGrace = 5 * time.Second
	// removePause is the time between two attempts to remove what is ill.
	removePause = time.Second
)

// checks is what this agent checks.
type checks struct {
	runner *check.Runner
	path   string

	mu      sync.Mutex // guards what follows, and writes to path
	kept    map[check.Key]api.Watch
	missing map[check.Key]time.Time // since when the instance is
}

// openChecks goes on with the checks of before the restart.
func (a *Agent) openChecks(dir string) error {
	c := &checks{path: filepath.Join(dir, checksFile), kept: map[check.Key]api.Watch{}, missing: map[check.Key]time.Time{}}
	c.runner = check.New(check.Config{Report: a.checked, Remove: a.removeIll})
	a.checks = c
	a.undo.push("checks", func(context.Context) error { c.runner.Close(); return nil })
	b, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	byName := map[string]api.Watch{}
	if err == nil {
		err = json.Unmarshal(b, &byName)
	}
	if err != nil {
		return fmt.Errorf("checks: %s: %w; remove it and register again", c.path, err)
	}
	for name, w := range byName {
		service, id, _ := strings.Cut(name, "/")
		key := check.Key{Service: service, ID: id}
		c.kept[key] = w
		c.runner.Put(key, w.Checks, a.statusOf(key))
	}
	return nil
}

// runChecks tends to checks until ctx ends. The checks themselves run by
// themselves.
func (a *Agent) runChecks(ctx context.Context) {
	tick := time.NewTicker(advance)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.tendChecks(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// save writes what is to be checked. It is called with mu held.
func (c *checks) save() error {
	byName := make(map[string]api.Watch, len(c.kept))
	for k, w := range c.kept {
		byName[k.Service+"/"+k.ID] = w
	}
	b, err := json.Marshal(byName)
	if err != nil {
		return err
	}
	return replaceFile(c.path, append(b, '\n'))
}

// watched is what is to be checked of an instance that has a status now.
type watched struct {
	key   check.Key
	watch api.Watch
	now   record.Status
}

// put replaces what is checked of instances, and saves that once.
func (c *checks) put(list ...watched) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := false
	for _, w := range list {
		old, had := c.kept[w.key]
		if w.watch.IsZero() && !had {
			continue
		}
		delete(c.missing, w.key)
		c.runner.Put(w.key, w.watch.Checks, w.now)
		if had && old.Equal(w.watch) {
			continue
		}
		changed = true
		if c.kept[w.key] = w.watch; w.watch.IsZero() {
			delete(c.kept, w.key)
		}
	}
	if !changed {
		return nil
	}
	return c.save()
}

// first is the status with which an instance is registered.
func (c *checks) first(key check.Key, w api.Watch) record.Status {
	if status, _, ok := c.runner.Status(key); ok && c.runner.Same(key, w.Checks) {
		return status
	}
	return check.Initial(w.Checks)
}

// statusOf returns the status that this agent said an instance has.
func (a *Agent) statusOf(key check.Key) record.Status {
	a.origin.mu.Lock()
	defer a.origin.mu.Unlock()
	return a.origin.status(key.Service, key.ID)
}

// CanCheck implements api.Checks.
func (a *Agent) CanCheck(node string) error {
	if node != a.cfg.NodeName() {
		return &record.FieldError{
			Field: "checks", Problem: "are run by the agent of the node, " + node, Fix: "register at that agent, or leave node out",
		}
	}
	return a.ownsName()
}

// Watch implements api.Checks.
func (a *Agent) Watch(instances []record.Instance, watches []api.Watch) error {
	list, had := make([]watched, len(instances)), make([]bool, len(instances))
	for i := range list {
		w := watched{key: check.Key{Service: instances[i].Service, ID: instances[i].ID}, watch: watches[i]}
		w.now = a.checks.first(w.key, w.watch)
		_, _, had[i] = a.checks.runner.Status(w.key)
		if w.now != record.Passing { // said before anything is probed, so that what is found comes after it
			a.checked(w.key, w.now, "not checked yet")
		}
		list[i] = w
	}
	if err := a.checks.put(list...); err != nil {
		return fmt.Errorf("checks: %w", err)
	}
	for i, w := range list {
		if had[i] && w.watch.IsZero() { // nobody else takes back what they found
			a.checked(w.key, record.Passing, "not checked any more")
		}
		a.recheck(w.key, w.now)
	}
	return nil
}

// recheck says what checks have found meanwhile of an instance that was just
// registered, with the status first, by a request that did not know of it.
func (a *Agent) recheck(key check.Key, first record.Status) {
	if status, reason, ok := a.checks.runner.Status(key); ok && status != first {
		a.checked(key, status, reason)
	}
}

// Heartbeat implements api.Checks.
func (a *Agent) Heartbeat(service, id string) (api.Vouched, error) {
	key := check.Key{Service: service, ID: id}
	beaten := a.checks.runner.Heartbeat(key)
	if _, _, ok := a.store.State().Instance(service, id); ok && beaten {
		v, err := a.vouch(service, id, catalog.Item{}, nil)
		v.Class, v.Version = record.ClassCritical.String(), ""
		return v, err
	}
	a.checks.mu.Lock()
	lifetime := a.checks.kept[key].Lifetime
	a.checks.mu.Unlock()
	return a.update(service, id, func(in *record.Instance) {
		if lifetime != 0 {
			in.Expires = time.Now().Add(lifetime).UnixMilli()
		}
	})
}

// checked says in gossip what a check found. What an operator said goes first.
func (a *Agent) checked(key check.Key, status record.Status, reason string) {
	_, err := a.setStatus(key.Service, key.ID, status, reason, "check", true)
	if err != nil && !errors.Is(err, store.ErrNotFound) { // what is gone is tended to
		a.log.Warn("what a check found could not be told", "service", key.Service, "instance", key.ID, "status", status.String(), "error", err)
	}
}

// removeIll removes an instance that was critical for as long as its checks
// allow.
func (a *Agent) removeIll(ctx context.Context, key check.Key) {
	a.log.Info("removing an instance that was critical for too long", "service", key.Service, "instance", key.ID)
	pause := time.NewTicker(removePause)
	defer pause.Stop()
	for {
		err := a.removeOnce(ctx, key)
		again := errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUnknown) || errors.Is(err, store.ErrPrecondition)
		if !again {
			if err != nil && !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
				a.log.Error("could not remove an instance", "service", key.Service, "instance", key.ID, "error", err)
			}
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		if status, _, ok := a.checks.runner.Status(key); !ok || status != record.Critical {
			return // it is well, or gone
		}
	}
}

// removeOnce removes an instance as it is registered now. One that is committed
// on another node is not the one that was checked here.
func (a *Agent) removeOnce(ctx context.Context, key check.Key) error {
	in, at, ok := a.store.State().Instance(key.Service, key.ID)
	switch {
	case !ok:
		_, err := a.WithdrawOwn(key.Service, key.ID, "check")
		if errors.Is(err, store.ErrNotFound) && !a.knowsCommitted() {
			return fmt.Errorf("%w: what is committed is not known yet", store.ErrUnavailable)
		}
		return err
	case in.Node != a.cfg.NodeName():
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, fenceTimeout)
	defer cancel()
	_, err := a.store.DeregisterInstance(ctx, store.Meta{Principal: "check:" + a.cfg.NodeName(), IfMatch: &at}, key.Service, key.ID)
	return err
}

// knowsCommitted reports whether an instance that is not committed as far as
// this agent knows is not: after a start it may know little, until it hears of
// a leader.
func (a *Agent) knowsCommitted() bool {
	return !a.store.LastContact().IsZero() && a.store.State().Initialized()
}

// tendChecks ends the checks of instances that are gone, and says again of
// those that were committed anew what their checks found.
func (a *Agent) tendChecks(now time.Time) {
	known, st := a.knowsCommitted(), a.store.State()
	var ended []watched
	for _, key := range a.checks.keys() {
		in, _, committed := st.Instance(key.Service, key.ID)
		a.origin.mu.Lock()
		_, own := a.origin.items[record.InstanceKey(key.Service, key.ID)]
		a.origin.mu.Unlock()
		there := own || committed && in.Node == a.cfg.NodeName() || !known
		if a.checks.gone(key, there, now) {
			ended = append(ended, watched{key: key})
		} else if a.statusOf(key) == record.Passing {
			a.recheck(key, record.Passing)
		}
	}
	if err := a.checks.put(ended...); err != nil {
		a.log.Error("could not write down that checks ended", "instances", len(ended), "error", err)
	}
}

func (c *checks) keys() []check.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]check.Key, 0, len(c.kept))
	for k := range c.kept {
		out = append(out, k)
	}
	return out
}

// gone reports whether an instance has been missing for long enough.
func (c *checks) gone(key check.Key, there bool, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if there {
		delete(c.missing, key)
		return false
	}
	since, ok := c.missing[key]
	if !ok {
		c.missing[key] = now
		return false
	}
	return now.Sub(since) > checkGrace
}
