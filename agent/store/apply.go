package store

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fluid-sd/fluid/plugin/record"
)

// apply runs one command. Errors are refusals; they are part of the outcome,
// the same on every server.
func (t *txn) apply(c *command) outcome {
	key := c.scopedKey()
	if key != "" {
		if used, ok := t.keys.get(key); ok {
			return t.repeat(c, used)
		}
		if t.keys.len() >= maxKeys {
			return refused(refuse(ErrTooManyKeys,
				"idempotency key: %d keys of the last %s are remembered; retry later or write without a key", maxKeys, keyTTL))
		}
	}
	items, err := t.run(c)
	if err != nil {
		return outcome{pos: t.s.pos, err: err}
	}
	o := outcome{pos: t.s.pos, items: items}
	if key != "" {
		t.keys.set(key, usedKey{time: t.s.now, digest: c.digest(), reply: string(o.append(nil))})
		t.keyAges.set(numbered(uint64(t.s.now), key), struct{}{})
	}
	return o
}

func (t *txn) repeat(c *command, used usedKey) outcome {
	if used.digest != c.digest() {
		return outcome{pos: t.s.pos, err: refuse(ErrKeyReused,
			"idempotency key: %q was used with another request; use a new key", c.meta.IdempotencyKey)}
	}
	o, err := decodeOutcome(used.reply)
	if err != nil {
		return outcome{pos: t.s.pos, err: refuse(ErrInvalid, "idempotency key: %v", err)}
	}
	return o
}

func (t *txn) run(c *command) ([]item, error) {
	switch c.op {
	case opInit:
		return t.initCluster(c)
	case opRegister:
		return t.register(c)
	case opDeregisterInstance:
		return t.deregisterInstance(c)
	case opDeregister:
		return t.deregister(c)
	case opPutService:
		return t.putService(c)
	case opPutOverlay:
		return t.putOverlay(c)
	case opDeleteOverlay:
		return t.deleteKey(c, record.OverlayKey(c.target), "overlay "+c.target)
	case opPutFence:
		return t.putFence(c)
	case opDeleteFence:
		return t.deleteKey(c, record.Key(c.target), "fence "+c.target)
	case opExpire:
		return t.expire()
	case opPutServer, opRemoveServer:
		return t.server(c)
	case opPutMember, opRemoveMember:
		return t.member(c)
	case opStageRestore:
		return t.stageRestore(c)
	case opCommitRestore:
		return t.commitRestore(c)
	}
	return nil, refuse(ErrInvalid, "command %s is not known", c.op)
}

// register creates or replaces instances, all or none.
func (t *txn) register(c *command) ([]item, error) {
	r := registration{t: t}
	for i, v := range c.values {
		if err := r.check(i, v, c.meta, len(c.values)); err != nil {
			return nil, err
		}
	}
	for i := range r.services {
		if err := r.checkService(&r.services[i]); err != nil {
			return nil, err
		}
	}
	if err := t.room(r.created, r.bytes); err != nil {
		return nil, err
	}
	return r.write(), nil
}

// registration checks a batch of instances before any of it is written.
type registration struct {
	t        *txn
	rows     []row
	services []touched
	created  int
	bytes    int64
	buf      []byte // for encodings, reused
}

// row is one instance of the batch.
type row struct {
	in         record.Instance
	key        record.Key
	value      string
	old        record.Entry
	wasExpires int64
	exists     bool
	unchanged  bool
}

// touched is one service of the batch.
type touched struct {
	name    string
	created int
	exists  bool     // has a committed record
	labels  []string // of the batch's instances, in its order
	rows    []int
}

func (r *registration) check(i int, value string, m Meta, n int) error {
	at := ""
	if n > 1 {
		at = fmt.Sprintf("[%d].", i)
	}
	in, err := record.DecodeInstance(value)
	if err != nil {
		return refuse(ErrInvalid, "%sinstance: %v", at, err)
	}
	w := row{in: in, key: record.InstanceKey(in.Service, in.ID)}
	w.old, w.exists = r.t.get(w.key)
	if m.IfMatch != nil {
		if err := match(m, fmt.Sprintf("%sinstance %s of %s", at, in.ID, in.Service), w.old.Index); err != nil {
			return err
		}
	}
	w.in.Registered = r.t.s.now
	if w.exists {
		old, err := record.DecodeInstance(w.old.Value)
		if err == nil {
			w.wasExpires = old.Expires
			w.in.Registered = old.Registered
			r.buf = w.in.Append(r.buf[:0])
			w.unchanged = string(r.buf) == w.old.Value
			w.in.Registered = r.t.s.now
		}
	}
	r.buf = w.in.Append(r.buf[:0])
	w.value = string(r.buf)

	s, err := r.service(at, in.Service)
	if err != nil {
		return err
	}
	label := in.Label()
	if j := slices.Index(s.labels, label); j >= 0 {
		return refuse(ErrConflict, "%sid: %q has the host label %s, like %q of the same batch; give each instance its own id",
			at, in.ID, label, r.rows[s.rows[j]].in.ID)
	}
	for _, id := range idsOfLabel(label) {
		if id == in.ID {
			continue
		}
		if _, ok := r.t.get(record.InstanceKey(in.Service, id)); ok {
			return refuse(ErrConflict, "%sid: %q has the host label %s, like the registered %q; use that id, or another label",
				at, in.ID, label, id)
		}
	}
	s.labels = append(s.labels, label)
	s.rows = append(s.rows, len(r.rows))
	if !w.exists {
		s.created++
		r.created++
		r.bytes += int64(len(w.key))
	}
	r.bytes += int64(len(w.value) - len(w.old.Value))
	r.rows = append(r.rows, w)
	return nil
}

// service returns the batch's notes on a service, and refuses one of another class.
func (r *registration) service(at, name string) (*touched, error) {
	if i := slices.IndexFunc(r.services, func(s touched) bool { return s.name == name }); i >= 0 {
		return &r.services[i], nil
	}
	e, ok := r.t.get(record.ServiceKey(name))
	if ok {
		if s, err := record.DecodeService(e.Value); err == nil && s.Class != record.ClassCritical {
			return nil, refuse(ErrConflict, "%sservice: %q is %s; register the instance there, or make the service critical first", at, name, s.Class)
		}
	}
	r.services = append(r.services, touched{name: name, exists: ok})
	return &r.services[len(r.services)-1], nil
}

// checkService refuses a host (a CNAME, which tolerates no other record,
// RFC 1034 section 3.6.2) beside another instance.
func (r *registration) checkService(s *touched) error {
	stat := r.t.stat(s.name)
	if stat.instances+s.created <= 1 {
		return nil
	}
	for _, i := range s.rows {
		if r.rows[i].in.Host != "" {
			return refuse(ErrConflict, "host: %q must be the only instance of %s; remove the others first", r.rows[i].in.Host, s.name)
		}
	}
	if stat.instances != 1 {
		return nil
	}
	for _, e := range r.t.prefix(record.InstanceKey(s.name, "")) {
		in, err := record.DecodeInstance(e.Value)
		if err != nil || in.Host == "" || slices.Contains(s.labels, in.Label()) {
			continue
		}
		return refuse(ErrConflict, "service: %s is the alias %q, which must be its only instance; remove it first", s.name, in.Host)
	}
	return nil
}

func (r *registration) write() []item {
	for _, s := range r.services {
		if !s.exists && !r.t.dry {
			rec := record.Service{Name: s.name, Class: record.ClassCritical}
			r.t.put(record.ServiceKey(s.name), string(rec.Append(nil)), 0, 0)
		}
	}
	items := make([]item, len(r.rows))
	for i, w := range r.rows {
		if w.unchanged {
			items[i] = item{index: w.old.Index}
			continue
		}
		if !r.t.dry {
			r.t.put(w.key, w.value, w.wasExpires, w.in.Expires)
		}
		items[i] = item{created: !w.exists, changed: true, index: r.t.s.pos.Index}
	}
	return items
}

// idsOfLabel returns the canonical instance ids whose host label is label.
func idsOfLabel(label string) []string {
	ids := []string{label}
	try := func(id string) {
		if c, err := record.CanonicalID("id", id); err == nil && c == id && record.HostLabel(id) == label {
			ids = append(ids, id)
		}
	}
	parts := strings.Split(label, "-")
	switch {
	case len(parts) == 4 || len(parts) == 5:
		try(strings.Join(append([]string{strings.Join(parts[:4], ".")}, parts[4:]...), "-"))
	case len(parts) <= 2 && len(parts[0]) == 32:
		if id, ok := addrOfHex(parts[0]); ok {
			try(strings.Join(append([]string{id}, parts[1:]...), "-"))
		}
	}
	return ids
}
