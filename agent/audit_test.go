package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

// answers is a Writer with a prepared answer.
type answers struct {
	api.Writer
	result store.Result
	err    error
}

func (w *answers) Register(context.Context, store.Meta, []record.Instance) ([]store.Result, error) {
	if w.err != nil {
		return nil, w.err
	}
	return []store.Result{w.result}, nil
}

func (w *answers) Deregister(context.Context, store.Meta, string) (store.Result, error) {
	return w.result, w.err
}

func (w *answers) PutOverlay(context.Context, store.Meta, record.Overlay) (store.Result, error) {
	return w.result, w.err
}

func TestAudit(t *testing.T) {
	dir := t.TempDir()
	w := &answers{}
	a, err := openAudit(dir, w, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m := store.Meta{Principal: "operator", Remote: "127.0.0.1:9"}
	web := record.Instance{Service: "web", ID: "10.0.0.1", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	at := record.Position{Generation: 1, Index: 7}
	w.result = store.Result{Position: at, Changed: true}
	_, _ = a.Register(t.Context(), m, []record.Instance{web})
	w.result.Changed = false
	_, _ = a.Register(t.Context(), m, []record.Instance{web})
	w.err = store.ErrNotFound
	_, _ = a.Deregister(t.Context(), m, "web")
	w.err = store.ErrUnknown
	_, _ = a.PutOverlay(t.Context(), m, record.Overlay{Kind: record.OverlayDrain, Node: "n1"})
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range lines(t, filepath.Join(dir, auditFile)) {
		if l.Principal != "operator" || l.Remote != "127.0.0.1:9" || l.Time == "" {
			t.Errorf("got %+v", l)
		}
		got = append(got, strings.Join([]string{l.Op, strings.Join(l.Targets, ","), l.Outcome, l.Position, l.Error}, " "))
	}
	want := []string{
		"register web/10.0.0.1 done 1:7 ",
		"register web/10.0.0.1 unchanged 1:7 ",
		"deregister web refused  not found",
		"put-overlay drain node:n1 unknown  outcome unknown",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func lines(t *testing.T, path string) []auditLine {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []auditLine
	for l := range strings.Lines(string(b)) {
		var line auditLine
		if err := json.Unmarshal([]byte(l), &line); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		out = append(out, line)
	}
	return out
}

func TestAuditRotates(t *testing.T) {
	dir := t.TempDir()
	a, err := openAudit(dir, &answers{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a.max = 400
	for range 40 {
		_, _ = a.Deregister(t.Context(), store.Meta{}, "web")
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, auditFile+"*"))
	if err != nil || len(files) != auditKeep+1 {
		t.Errorf("got %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 400 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
		if len(lines(t, f)) == 0 {
			t.Errorf("%s is empty", f)
		}
	}
}
