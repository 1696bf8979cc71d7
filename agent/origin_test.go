package agent

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

func openTestOrigin(t *testing.T, dir string) *origin {
	t.Helper()
	o, err := openOrigin(dir, newView(nil, slog.New(slog.DiscardHandler)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.close() })
	return o
}

func (o *origin) report(id, reason string) error {
	_, _, err := o.change(func(now int64, ow *catalog.Owner) (catalog.Item, bool, error) {
		it, changed := ow.Report(now, &record.Report{Service: "web", ID: id, Status: record.Critical, Reason: reason})
		return it, changed, nil
	}, true)
	return err
}

// What the next start could not read is not written.
func TestOriginRefusesOversized(t *testing.T) {
	dir := t.TempDir()
	o := openTestOrigin(t, dir)
	if err := o.report("a", strings.Repeat("x", record.MaxEncoded)); !errors.Is(err, record.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if err := o.report("b", "disk"); err != nil {
		t.Error(err)
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	if items := openTestOrigin(t, dir).items; len(items) != 1 {
		t.Errorf("after a restart: got %v", items)
	}
}
