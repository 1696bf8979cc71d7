package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Bounds of the audit log: size of a file in bytes, older files that are kept,
// and the records of one batch that a line names.
const (
	auditSize  = 16 << 20
	auditKeep  = 5
	auditNamed = 16
)

// auditLine is one critical write.
type auditLine struct {
	Time       string   `json:"time"` // leader's, RFC 3339 in UTC
	Principal  string   `json:"principal,omitempty"`
	Remote     string   `json:"remote,omitempty"`
	Command    string   `json:"command"`
	Targets    []string `json:"targets,omitempty"` // keys, at most auditNamed
	Count      int      `json:"count,omitempty"`   // of records, if there are more
	Generation uint64   `json:"generation"`
	Index      uint64   `json:"index"`
	Outcome    string   `json:"outcome"` // changed, unchanged or refused
	Error      string   `json:"error,omitempty"`
}

// auditLog writes one JSON line per critical write that this server applied,
// and one per write that it answered as leader without an entry. It rotates its file by size. A
// line that cannot be written is lost and counted: an audit log that is full
// must not stop the cluster.
type auditLog struct {
	path string

	mu   sync.Mutex // guards what follows
	file *os.File
	size int64
	lost uint64
}

func openAudit(path string) (*auditLog, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open audit log: %w", err), f.Close())
	}
	return &auditLog{path: path, file: f, size: fi.Size()}, nil
}

// applied writes the lines of one log entry.
func (a *auditLog) applied(gen uint64, e *applied) {
	var b []byte
	for i := range e.commands {
		b = appendLine(b, &e.commands[i], e.time, record.Position{Generation: gen, Index: e.index}, &e.outcomes[i])
	}
	a.write(b)
}

// idle writes the line of a write that never became an entry: it was refused,
// or would have changed nothing.
func (a *auditLog) idle(c *command, o *outcome) {
	a.write(appendLine(nil, c, time.Now().UnixMilli(), o.pos, o))
}

func appendLine(b []byte, c *command, ms int64, pos record.Position, o *outcome) []byte {
	l := auditLine{
		Time:      time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z"),
		Principal: c.meta.Principal, Remote: c.meta.Remote, Command: c.op.String(),
		Targets: c.targets(), Generation: pos.Generation, Index: pos.Index, Outcome: "unchanged",
	}
	if len(c.values) > auditNamed {
		l.Count = len(c.values)
	}
	for _, it := range o.items {
		if it.changed {
			l.Outcome = "changed"
		}
	}
	if o.err != nil {
		l.Outcome, l.Error = "refused", o.err.Error()
	}
	return append(l.append(b), '\n')
}

// append appends the line as encoding/json would, in a third of the time.
func (l *auditLine) append(b []byte) []byte {
	text := func(name, s string) {
		b = append(append(append(b, '"'), name...), `":`...)
		b = append(appendText(b, s), ',')
	}
	number := func(name string, n uint64) {
		b = append(append(append(b, '"'), name...), `":`...)
		b = append(strconv.AppendUint(b, n, 10), ',')
	}
	b = append(b, '{')
	text("time", l.Time)
	if l.Principal != "" {
		text("principal", l.Principal)
	}
	if l.Remote != "" {
		text("remote", l.Remote)
	}
	text("command", l.Command)
	if len(l.Targets) > 0 {
		b = append(b, `"targets":[`...)
		for _, t := range l.Targets {
			b = append(appendText(b, t), ',')
		}
		b = append(b[:len(b)-1], "],"...)
	}
	if l.Count > 0 {
		number("count", uint64(l.Count))
	}
	number("generation", l.Generation)
	number("index", l.Index)
	text("outcome", l.Outcome)
	if l.Error != "" {
		text("error", l.Error)
	}
	b[len(b)-1] = '}'
	return b
}

// appendText appends a string of JSON.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || strings.IndexByte(`"\<>&`, c) >= 0 {
			q, _ := json.Marshal(s) // never fails
			return append(b, q...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// targets names what a command is about, as keys where there are such.
func (c *command) targets() (out []string) {
	for i, v := range c.values[:min(len(c.values), auditNamed)] {
		switch c.op {
		case opRegister:
			if in, err := c.instance(i); err == nil {
				out = append(out, string(record.InstanceKey(in.Service, in.ID)))
			}
		case opPutService:
			if s, err := record.DecodeService(v); err == nil {
				out = append(out, string(record.ServiceKey(s.Name)))
			}
		case opPutOverlay:
			if o, err := record.DecodeOverlay(v); err == nil {
				out = append(out, string(record.OverlayKey(o.ID)))
			}
		case opPutFence:
			if f, err := record.DecodeFence(v); err == nil {
				out = append(out, string(f.Key()))
			}
		case opPutServer:
			if s, err := decodeServerInfo(v); err == nil {
				out = append(out, "server/"+s.ID)
			}
		case opPutMember:
			if m, err := decodeMember(v); err == nil {
				out = append(out, "member/"+m.ID)
			}
		}
	}
	switch c.op {
	case opDeregisterInstance:
		out = append(out, string(record.InstanceKey(c.target, c.id)))
	case opDeregister:
		out = append(out, string(record.ServiceKey(c.target)))
	case opDeleteOverlay:
		out = append(out, string(record.OverlayKey(c.target)))
	case opDeleteFence:
		out = append(out, c.target)
	case opRemoveServer:
		out = append(out, "server/"+c.target)
	case opRemoveMember:
		out = append(out, "member/"+c.target)
	}
	return out
}

func (a *auditLog) write(b []byte) {
	if len(b) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil && a.size+int64(len(b)) > auditSize {
		a.rotate()
	}
	if a.file == nil {
		a.lost++
		return
	}
	n, err := a.file.Write(b)
	a.size += int64(n)
	if err != nil {
		a.lost++
	}
}

// rotate renames path to path.1, path.1 to path.2 and so on, and begins anew.
func (a *auditLog) rotate() {
	for i := auditKeep; i > 1; i-- {
		_ = os.Rename(fmt.Sprintf("%s.%d", a.path, i-1), fmt.Sprintf("%s.%d", a.path, i))
	}
	_ = a.file.Close()
	_ = os.Rename(a.path, a.path+".1")
	f, err := os.OpenFile(a.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		a.file = nil
		return
	}
	a.file, a.size = f, 0
}

func (a *auditLog) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return nil
	}
	f := a.file
	a.file = nil
	return f.Close()
}
