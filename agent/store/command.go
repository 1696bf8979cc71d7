package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Limits of one write.
const (
	// MaxBatch is how many instances one Register may hold.
	MaxBatch = 1000
	// MaxEntry is how many bytes one Raft log entry may have: votes and
	// heartbeats share the connection with the data.
	MaxEntry = 512 << 10
	// MaxKey is how many bytes an idempotency key may have.
	MaxKey = 128
)

// entryVersion is the first byte of every command entry in the Raft log.
const entryVersion = 1

// entryOverhead bounds what an entry adds to the commands in it.
const entryOverhead = 64

// op is the type of a command. The numbers are in every log and snapshot;
// never renumber them. A server that meets a number it does not know stops its
// state machine, so a new one is proposed only once every server knows it.
type op uint64

const (
	opInit               op = 1 // make the cluster: its key and generation
	opRegister           op = 2
	opDeregisterInstance op = 3
	opDeregister         op = 4
	opPutService         op = 5
	opPutOverlay         op = 6
	opDeleteOverlay      op = 7
	opPutFence           op = 8
	opDeleteFence        op = 9
	opExpire             op = 10 // remove what expired by the entry's time
	opPutServer          op = 11
	opRemoveServer       op = 12
	opPutMember          op = 13
	opRemoveMember       op = 14
	opStageRestore       op = 15 // a piece of a snapshot
	opCommitRestore      op = 16 // the snapshot whose pieces are staged

	opLast = opCommitRestore
)

var opNames = map[op]string{
	opInit: "init", opRegister: "register", opDeregisterInstance: "deregister-instance",
	opDeregister: "deregister", opPutService: "put-service", opPutOverlay: "put-overlay",
	opDeleteOverlay: "delete-overlay", opPutFence: "put-fence", opDeleteFence: "delete-fence",
	opExpire: "expire", opPutServer: "put-server", opRemoveServer: "remove-server",
	opPutMember: "put-member", opRemoveMember: "remove-member",
	opStageRestore: "stage-restore", opCommitRestore: "restore",
}

// String returns the name of the command, as the audit log writes it.
func (o op) String() string {
	if n, ok := opNames[o]; ok {
		return n
	}
	return fmt.Sprintf("op(%d)", uint64(o))
}

// Meta says who asks for a write and under which conditions.
type Meta struct {
	Principal string // who asks, for the audit log; idempotency keys are scoped by it
	Remote    string // from which address
	// IdempotencyKey makes a repeated write return the first one's result
	// for at least 15 minutes. Empty: none.
	IdempotencyKey string
	// Request tells two requests with one idempotency key apart, where the
	// records themselves cannot: a lifetime such as "10m" from now gives another
	// record each time. Empty: the records tell. Only read with a key.
	Request string
	// IfMatch is the index that the thing to change must have, 0 for one that
	// must not exist. Nil: any.
	IfMatch *uint64
}

// command is one client's write, as it stands in a log entry.
type command struct {
	op     op
	meta   Meta
	values []string // encoded records
	// instances are those that values encode; nil if they are not known.
	instances []record.Instance
	target    string // service, overlay id, fence key, server or member id
	id        string // instance id
}

func (c *command) append(b []byte) []byte {
	b = record.AppendUint(b, 1, uint64(c.op))
	b = record.AppendString(b, 2, c.meta.Principal)
	b = record.AppendString(b, 3, c.meta.Remote)
	b = record.AppendString(b, 4, c.meta.IdempotencyKey)
	if c.meta.IfMatch != nil {
		b = record.AppendUint(b, 5, *c.meta.IfMatch+1)
	}
	b = c.appendBody(b)
	if c.meta.IdempotencyKey != "" {
		b = record.AppendString(b, 9, c.meta.Request)
	}
	return b
}

// appendBody appends what an idempotency key must be used with.
func (c *command) appendBody(b []byte) []byte {
	for _, v := range c.values {
		b = record.AppendElem(b, 6, v)
	}
	b = record.AppendString(b, 7, c.target)
	return record.AppendString(b, 8, c.id)
}

// instance returns the ith value of a register.
func (c *command) instance(i int) (record.Instance, error) {
	if c.instances != nil {
		return c.instances[i], nil
	}
	return record.DecodeInstance(c.values[i])
}

// scopedKey returns the idempotency key with its principal, "" if there is none.
func (c *command) scopedKey() string {
	if c.meta.IdempotencyKey == "" {
		return ""
	}
	return c.meta.Principal + "\x00" + c.meta.IdempotencyKey
}

// digest identifies the request for the idempotency check.
func (c *command) digest() string {
	b := record.AppendUint(nil, 1, uint64(c.op))
	if c.meta.IfMatch != nil {
		b = record.AppendUint(b, 5, *c.meta.IfMatch+1)
	}
	if c.meta.Request != "" {
		b = record.AppendString(b, 9, c.meta.Request)
	} else {
		b = c.appendBody(b)
	}
	sum := sha256.Sum256(b)
	return string(sum[:16])
}

func decodeCommand(s string) (command, error) {
	var c command
	err := eachField(s, func(f field) error {
		switch f.id {
		case 1:
			c.op = op(f.num)
		case 2:
			c.meta.Principal = f.data
		case 3:
			c.meta.Remote = f.data
		case 4:
			c.meta.IdempotencyKey = f.data
		case 5:
			m := f.num - 1
			c.meta.IfMatch = &m
		case 6:
			c.values = append(c.values, f.data)
		case 7:
			c.target = f.data
		case 8:
			c.id = f.data
		case 9:
			c.meta.Request = f.data
		default:
			return unknownField("command", f)
		}
		return nil
	})
	if err == nil && (c.op == 0 || c.op > opLast) {
		err = fmt.Errorf("%w: command type %d is not known to this version", errWire, c.op)
	}
	return c, err
}

// logEntry is the data of one Raft log entry: what the leader stamped, and the
// commands that it put together.
type logEntry struct {
	time         int64 // leader's clock, milliseconds since the Unix epoch
	maxInstances uint64
	maxBytes     uint64
	commands     []string // encoded, see command
}

func (e *logEntry) append(b []byte) []byte {
	b = append(b, entryVersion)
	b = record.AppendUint(b, 1, uint64(e.time))
	b = record.AppendUint(b, 2, e.maxInstances)
	b = record.AppendUint(b, 3, e.maxBytes)
	for _, c := range e.commands {
		b = record.AppendElem(b, 4, c)
	}
	return b
}

// room returns at least as many bytes as append needs.
func (e *logEntry) room() int {
	n := entryOverhead
	for _, c := range e.commands {
		n += 1 + binary.MaxVarintLen32 + len(c)
	}
	return n
}

func decodeEntry(s string) (logEntry, error) {
	var e logEntry
	if s == "" || s[0] != entryVersion {
		return e, fmt.Errorf("%w: log entry of a version other than %d", errWire, entryVersion)
	}
	err := eachField(s[1:], func(f field) error {
		switch f.id {
		case 1:
			e.time = int64(f.num)
		case 2:
			e.maxInstances = f.num
		case 3:
			e.maxBytes = f.num
		case 4:
			e.commands = append(e.commands, f.data)
		default:
			return unknownField("log entry", f)
		}
		return nil
	})
	return e, err
}

// item is what became of one part of a command.
type item struct {
	created, changed bool
	index            uint64 // index of the last change of the part
}

// outcome is what became of one command.
type outcome struct {
	pos   record.Position // at which it was decided
	items []item          // one per value of a register, else one; nil if refused
	err   error           // *refusal, else nil
}

func refused(err error) outcome { return outcome{err: err} }

func (o *outcome) append(b []byte) []byte {
	b = record.AppendUint(b, 1, o.pos.Generation)
	b = record.AppendUint(b, 2, o.pos.Index)
	for _, it := range o.items {
		b = record.AppendElem(b, 3, it.append(nil))
	}
	if o.err != nil {
		b = record.AppendUint(b, 4, refusalCode(o.err))
		b = record.AppendElem(b, 5, o.err.Error())
	}
	return b
}

func decodeOutcome(s string) (outcome, error) {
	var o outcome
	var code uint64
	var text string
	err := eachField(s, func(f field) error {
		switch f.id {
		case 1:
			o.pos.Generation = f.num
		case 2:
			o.pos.Index = f.num
		case 3:
			it, err := decodeItem(f.data)
			o.items = append(o.items, it)
			return err
		case 4:
			code = f.num
		case 5:
			text = f.data
		}
		return nil
	})
	if code != 0 {
		sentinel, ok := refusals[code]
		if !ok {
			sentinel = ErrInvalid
		}
		o.err = &refusal{sentinel: sentinel, text: text}
	}
	return o, err
}

func (it item) append(b []byte) []byte {
	var flags uint64
	if it.created {
		flags |= 1
	}
	if it.changed {
		flags |= 2
	}
	return record.AppendUint(record.AppendUint(b, 1, flags), 2, it.index)
}

func decodeItem(s string) (item, error) {
	var it item
	err := eachField(s, func(f field) error {
		switch f.id {
		case 1:
			it.created, it.changed = f.num&1 != 0, f.num&2 != 0
		case 2:
			it.index = f.num
		}
		return nil
	})
	return it, err
}
