package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Result is what became of one record of a write.
type Result struct {
	Service string
	ID      string // instance or overlay id
	// Position of the last change of the record: of this write, or of an
	// earlier one if nothing changed.
	Position record.Position
	Created  bool // it did not exist before
	Changed  bool // false: it was so already, and nothing was written
}

// writes are the methods that change what is committed. A Store and a Client
// have them; they differ in how a command comes to the leader.
type writes struct {
	timeout time.Duration // bounds a write whose context has no earlier deadline
	execute func(ctx context.Context, c *command) (outcome, error)
}

// Register creates or replaces instances of critical services, all or none:
// one log entry of at most MaxBatch instances and MaxEntry bytes. The
// instances are normalized and validated; the first that is not valid is
// returned as a *record.FieldError. A service that does not exist is made.
// An unchanged instance writes nothing. With Meta.IfMatch, exactly one
// instance may be given.
func (w *writes) Register(ctx context.Context, m Meta, ins []record.Instance) ([]Result, error) {
	switch {
	case len(ins) == 0:
		return nil, refuse(ErrInvalid, "batch: it is empty; give at least one instance")
	case len(ins) > MaxBatch:
		return nil, refuse(ErrTooLarge, "batch: %d instances exceed the limit of %d; split it", len(ins), MaxBatch)
	case len(ins) > 1 && m.IfMatch != nil:
		return nil, refuse(ErrInvalid, "If-Match: it is given with %d instances; register one at a time", len(ins))
	}
	c := &command{op: opRegister, meta: m, values: make([]string, len(ins)), instances: make([]record.Instance, len(ins))}
	var buf [256]byte
	out := make([]Result, len(ins))
	now := time.Now().UnixMilli()
	for i := range ins {
		in := ins[i]
		in.Addrs, in.Ports = append(in.Addrs[:0:0], in.Addrs...), append(in.Ports[:0:0], in.Ports...)
		in.Tags, in.Meta = append(in.Tags[:0:0], in.Tags...), append(in.Meta[:0:0], in.Meta...)
		in.Normalize()
		in.Registered = now // its size counts; the leader's time replaces it
		if err := in.Validate(); err != nil {
			return nil, inBatch(i, len(ins), err)
		}
		in.Registered = 0
		c.values[i], c.instances[i] = string(in.Append(buf[:0])), in
		out[i] = Result{Service: in.Service, ID: in.ID}
	}
	return w.write(ctx, c, out)
}

// inBatch names the item of a batch in a field error.
func inBatch(i, n int, err error) error {
	var fe *record.FieldError
	if n > 1 && errors.As(err, &fe) {
		named := *fe
		named.Field = fmt.Sprintf("[%d].%s", i, fe.Field)
		return &named
	}
	return err
}

// DeregisterInstance removes one instance of a critical service. The service
// stays. It returns ErrNotFound if there is no such instance.
func (w *writes) DeregisterInstance(ctx context.Context, m Meta, service, id string) (Result, error) {
	canonical, err := record.CanonicalID("id", id)
	if err != nil {
		return Result{}, err
	}
	return w.writeOne(ctx, &command{op: opDeregisterInstance, meta: m, target: service, id: canonical},
		Result{Service: service, ID: canonical})
}

// Deregister removes a critical service with all its instances. It returns
// ErrNotFound if there is no such service. Meta.IfMatch is compared with the
// index that State.Service returns.
func (w *writes) Deregister(ctx context.Context, m Meta, service string) (Result, error) {
	return w.writeOne(ctx, &command{op: opDeregister, meta: m, target: service}, Result{Service: service})
}

// PutService sets the class and the settings of a service. A service with
// committed instances cannot become ephemeral: ErrConflict.
func (w *writes) PutService(ctx context.Context, m Meta, rec record.Service) (Result, error) {
	if err := rec.Validate(); err != nil {
		return Result{}, err
	}
	return w.writeOne(ctx, &command{op: opPutService, meta: m, values: []string{string(rec.Append(nil))}}, Result{Service: rec.Name})
}

// PutOverlay sets an overlay. One without an id gets a random one, which the
// result tells; that makes each such call a new overlay, so a repeated one
// should carry an id or an idempotency key.
func (w *writes) PutOverlay(ctx context.Context, m Meta, o record.Overlay) (Result, error) {
	if o.ID == "" {
		o.ID = newID()
	}
	if o.Instance != "" {
		id, err := record.CanonicalID("instance", o.Instance)
		if err != nil {
			return Result{}, err
		}
		o.Instance = id
	}
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	return w.writeOne(ctx, &command{op: opPutOverlay, meta: m, values: []string{string(o.Append(nil))}},
		Result{Service: o.Service, ID: o.ID})
}

// newID returns a random label of 16 characters that begins with a letter.
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return "o" + hex.EncodeToString(b[:])[1:]
}

// DeleteOverlay lifts an overlay. It returns ErrNotFound if there is none.
func (w *writes) DeleteOverlay(ctx context.Context, m Meta, id string) (Result, error) {
	return w.writeOne(ctx, &command{op: opDeleteOverlay, meta: m, target: id}, Result{ID: id})
}

// PutFence commits a fence; it acts by the position of the result. The same
// fence again moves it to a later position.
func (w *writes) PutFence(ctx context.Context, m Meta, f record.Fence) (Result, error) {
	return w.writeOne(ctx, &command{op: opPutFence, meta: m, values: []string{string(f.Append(nil))}},
		Result{Service: f.Service, ID: string(f.Key())})
}

// DeleteFence removes a fence that has nothing left to hide, by its key.
func (w *writes) DeleteFence(ctx context.Context, m Meta, key record.Key) (Result, error) {
	return w.writeOne(ctx, &command{op: opDeleteFence, meta: m, target: string(key)}, Result{ID: string(key)})
}

func (w *writes) writeOne(ctx context.Context, c *command, r Result) (Result, error) {
	rs, err := w.write(ctx, c, []Result{r})
	if err != nil {
		return Result{}, err
	}
	return rs[0], nil
}

// write runs a command and completes the results, one per item of it.
func (w *writes) write(ctx context.Context, c *command, out []Result) ([]Result, error) {
	if n := len(c.meta.IdempotencyKey); n > MaxKey {
		return nil, refuse(ErrTooLarge, "idempotency key: %d bytes exceed the limit of %d; use a shorter one", n, MaxKey)
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	o, err := w.execute(ctx, c)
	if err == nil {
		err = o.err
	}
	if err != nil {
		return nil, err
	}
	if len(o.items) != len(out) {
		return nil, fmt.Errorf("%w: %d results for %d records", ErrUnknown, len(o.items), len(out))
	}
	for i, it := range o.items {
		out[i].Created, out[i].Changed = it.created, it.changed
		out[i].Position = record.Position{Generation: o.pos.Generation, Index: it.index}
	}
	return out, nil
}

// rehearse applies a command to a copy of the state, and reports whether it
// changes nothing.
func (s *Store) rehearse(c *command) (o outcome, idle bool) {
	st := s.fsm.current.Load()
	t, ok := s.rehearsals.Get().(*txn)
	if !ok {
		t = &txn{}
	}
	defer s.rehearsals.Put(t)
	t.reset(st)
	t.dry = true
	t.begin(st.pos.Index, &logEntry{time: time.Now().UnixMilli(), maxInstances: s.cfg.MaxInstances, maxBytes: s.cfg.MaxBytes})
	repeated := false
	if key := c.scopedKey(); key != "" {
		_, repeated = t.keys.get(key)
	}
	o = t.apply(c)
	if o.err != nil || repeated {
		return o, true
	}
	for _, it := range o.items {
		if it.changed {
			return o, false
		}
	}
	// A new idempotency key is to be remembered, even for no change.
	return o, c.meta.IdempotencyKey == ""
}
