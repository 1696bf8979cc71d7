package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

// The audit log: auditFile in the data directory, and as many older ones as
// auditKeep says, audit.log.1 being the latest.
const (
	auditFile = "audit.log"
	auditSize = 64 << 20 // bytes after which a new file is begun
	auditKeep = 5
)

// audit writes one JSON line per critical write that this agent took: who,
// from where, what, at which position, with which outcome.
type audit struct {
	api.Writer
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex // guards what follows
	path string
	max  int64
	file *os.File
	size int64
	sick bool // the last line could not be written
}

// auditLine is one line. Targets are SERVICE/ID, SERVICE or an overlay's id.
type auditLine struct {
	Time           string   `json:"time"`
	Principal      string   `json:"principal"`
	Remote         string   `json:"remote"`
	Op             string   `json:"op"`
	Targets        []string `json:"targets"`
	IdempotencyKey string   `json:"idempotencyKey,omitempty"`
	Outcome        string   `json:"outcome"` // done, unchanged, refused or unknown
	Position       string   `json:"position,omitempty"`
	Error          string   `json:"error,omitempty"`
}

func openAudit(dir string, w api.Writer, log *slog.Logger) (*audit, error) {
	a := &audit{Writer: w, log: log, now: time.Now, path: filepath.Join(dir, auditFile), max: auditSize}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return a, nil
}

func (a *audit) open() error {
	f, err := os.OpenFile(a.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	a.file, a.size = f, info.Size()
	return nil
}

func (a *audit) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.file.Close()
}

// note writes a line. An audit log that cannot be written is said once and
// holds no write up: the log of the cluster has it too.
func (a *audit) note(op string, m store.Meta, targets []string, changed bool, pos record.Position, err error) {
	line := auditLine{
		Time: a.now().UTC().Format(time.RFC3339Nano), Principal: m.Principal, Remote: m.Remote, Op: op,
		Targets: targets, IdempotencyKey: m.IdempotencyKey, Outcome: "done",
	}
	switch {
	case errors.Is(err, store.ErrUnknown):
		line.Outcome, line.Error = "unknown", err.Error()
	case err != nil:
		line.Outcome, line.Error = "refused", err.Error()
	case !changed:
		line.Outcome, line.Position = "unchanged", pos.String()
	default:
		line.Position = pos.String()
	}
	b, merr := json.Marshal(line)
	if merr != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	werr := a.append(append(b, '\n'))
	if werr != nil && !a.sick {
		a.log.Error("the audit log cannot be written", "error", werr)
	}
	a.sick = werr != nil
}

func (a *audit) append(b []byte) error {
	if a.size+int64(len(b)) > a.max {
		if err := a.rotate(); err != nil {
			return err
		}
	}
	n, err := a.file.Write(b)
	a.size += int64(n)
	return err
}

func (a *audit) rotate() error {
	for i := auditKeep; i >= 1; i-- {
		from := a.path
		if i > 1 {
			from = fmt.Sprintf("%s.%d", a.path, i-1)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", a.path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	old := a.file
	if err := a.open(); err != nil {
		return err
	}
	return old.Close()
}

// Register implements api.Writer.
func (a *audit) Register(ctx context.Context, m store.Meta, ins []record.Instance) ([]store.Result, error) {
	rs, err := a.Writer.Register(ctx, m, ins)
	targets := make([]string, len(ins))
	for i := range ins {
		targets[i] = ins[i].Service + "/" + ins[i].ID
	}
	var pos record.Position
	changed := false
	for _, r := range rs {
		changed = changed || r.Changed
		if pos.Before(r.Position) {
			pos = r.Position
		}
	}
	a.note("register", m, targets, changed, pos, err)
	return rs, err
}

func (a *audit) one(op string, m store.Meta, target string, r store.Result, err error) (store.Result, error) {
	a.note(op, m, []string{target}, r.Changed, r.Position, err)
	return r, err
}

// Deregister implements api.Writer.
func (a *audit) Deregister(ctx context.Context, m store.Meta, service string) (store.Result, error) {
	r, err := a.Writer.Deregister(ctx, m, service)
	return a.one("deregister", m, service, r, err)
}

// DeregisterInstance implements api.Writer.
func (a *audit) DeregisterInstance(ctx context.Context, m store.Meta, service, id string) (store.Result, error) {
	r, err := a.Writer.DeregisterInstance(ctx, m, service, id)
	return a.one("deregister-instance", m, service+"/"+id, r, err)
}

// PutService implements api.Writer.
func (a *audit) PutService(ctx context.Context, m store.Meta, s record.Service) (store.Result, error) {
	r, err := a.Writer.PutService(ctx, m, s)
	return a.one("put-service", m, s.Name, r, err)
}

// PutOverlay implements api.Writer.
func (a *audit) PutOverlay(ctx context.Context, m store.Meta, o record.Overlay) (store.Result, error) {
	r, err := a.Writer.PutOverlay(ctx, m, o)
	target := o.Service
	switch {
	case o.Node != "":
		target = "node:" + o.Node
	case o.Instance != "":
		target += "/" + o.Instance
	}
	return a.one("put-overlay "+o.Kind.String(), m, target, r, err)
}

// DeleteOverlay implements api.Writer.
func (a *audit) DeleteOverlay(ctx context.Context, m store.Meta, id string) (store.Result, error) {
	r, err := a.Writer.DeleteOverlay(ctx, m, id)
	return a.one("delete-overlay", m, id, r, err)
}
