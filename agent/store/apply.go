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
	r := &t.reg
	r.begin(t)
	for i := range c.values {
		if err := r.check(i, c); err != nil {
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

// registration checks a batch of instances before any of it is written. It is
// used for one batch after the other, so that its memory is.
type registration struct {
	t        *txn
	rows     []row
	services []touched
	created  int
	bytes    int64
	buf      []byte // for encodings
}

func (r *registration) begin(t *txn) {
	r.t, r.rows, r.services, r.created, r.bytes = t, r.rows[:0], r.services[:0], 0, 0
}

// row is one instance of the batch.
type row struct {
	id, host   string
	key        record.Key
	value      string
	old        record.Entry
	wasExpires int64
	expires    int64
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

func (r *registration) check(i int, c *command) error {
	at := ""
	if len(c.values) > 1 {
		at = fmt.Sprintf("[%d].", i)
	}
	in, err := c.instance(i)
	if err != nil {
		return refuse(ErrInvalid, "%sinstance: %v", at, err)
	}
	w := row{id: in.ID, host: in.Host, expires: in.Expires, key: record.InstanceKey(in.Service, in.ID)}
	w.old, w.exists = r.t.get(w.key)
	if c.meta.IfMatch != nil {
		if err := match(c.meta, fmt.Sprintf("%sinstance %s of %s", at, in.ID, in.Service), w.old.Index); err != nil {
			return err
		}
	}
	if w.exists {
		w.key = w.old.Key // the state need not hold another copy
		in.Registered, w.wasExpires = lifetime(w.old.Value)
		r.buf = in.Append(r.buf[:0])
		w.unchanged = string(r.buf) == w.old.Value
	}
	in.Registered = r.t.s.now
	r.buf = in.Append(r.buf[:0])
	if !r.t.dry {
		w.value = string(r.buf)
	}

	s, err := r.service(at, in.Service)
	if err != nil {
		return err
	}
	label := in.Label()
	if j := slices.Index(s.labels, label); j >= 0 {
		return refuse(ErrConflict, "%sid: %q has the host label %s, like %q of the same batch; give each instance its own id",
			at, in.ID, label, r.rows[s.rows[j]].id)
	}
	for _, id := range idsOfLabel(label, in.ID) {
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
	r.bytes += int64(len(r.buf) - len(w.old.Value))
	r.rows = append(r.rows, w)
	return nil
}

// Fields of an encoded instance.
const (
	fieldRegistered = 15
	fieldExpires    = 16
)

// lifetime returns when a committed instance was registered, and when it
// expires. It is record.DecodeInstance without what takes time.
func lifetime(value string) (registered, expires int64) {
	_ = eachField(value, func(f field) error { // what is committed was encoded here
		switch f.id {
		case fieldRegistered:
			registered = int64(f.num)
		case fieldExpires:
			expires = int64(f.num)
		}
		return nil
	})
	return registered, expires
}

// service returns the batch's notes on a service, and refuses one of another class.
func (r *registration) service(at, name string) (*touched, error) {
	for i := range r.services {
		if r.services[i].name == name {
			return &r.services[i], nil
		}
	}
	e, ok := r.t.get(record.ServiceKey(name))
	if ok {
		if s, err := record.DecodeService(e.Value); err == nil && s.Class != record.ClassCritical {
			return nil, refuse(ErrConflict, "%sservice: %q is %s; register the instance there, or make the service critical first", at, name, s.Class)
		}
	}
	n := len(r.services)
	r.services = slices.Grow(r.services, 1)[:n+1]
	s := &r.services[n]
	*s = touched{name: name, exists: ok, labels: s.labels[:0], rows: s.rows[:0]}
	return s, nil
}

// checkService refuses a host (a CNAME, which tolerates no other record,
// RFC 1034 section 3.6.2) beside another instance.
func (r *registration) checkService(s *touched) error {
	stat := r.t.stat(s.name)
	if stat.instances+s.created <= 1 {
		return nil
	}
	for _, i := range s.rows {
		if host := r.rows[i].host; host != "" {
			return refuse(ErrConflict, "host: %q must be the only instance of %s; remove the others first", host, s.name)
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
	for i := range r.services {
		if s := &r.services[i]; !s.exists && !r.t.dry {
			rec := record.Service{Name: s.name, Class: record.ClassCritical}
			r.t.put(record.ServiceKey(s.name), string(rec.Append(nil)), 0, 0)
		}
	}
	items := make([]item, len(r.rows))
	for i := range r.rows {
		w := &r.rows[i]
		if w.unchanged {
			items[i] = item{index: w.old.Index}
			continue
		}
		if !r.t.dry {
			r.t.put(w.key, w.value, w.wasExpires, w.expires)
		}
		items[i] = item{created: !w.exists, changed: true, index: r.t.s.pos.Index}
	}
	return items
}

// idsOfLabel returns the canonical instance ids other than one whose host
// label is label.
func idsOfLabel(label, but string) []string {
	var ids []string
	if label != but {
		ids = append(ids, label)
	}
	if len(label) != 32 && !strings.Contains(label, "-") {
		return ids // not of an address
	}
	try := func(id string) {
		if id == but {
			return
		}
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
