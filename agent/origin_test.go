package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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

// What is written again and again does not make the log grow without end, and
// what is left of a failed write does no harm.
func TestOriginCompacts(t *testing.T) {
	dir := t.TempDir()
	o := openTestOrigin(t, dir)
	path := filepath.Join(dir, itemsFile)
	size := func() int64 {
		t.Helper()
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return fi.Size()
	}
	for _, id := range []string{"a", "b"} {
		if err := o.report(id, "disk"); err != nil {
			t.Fatal(err)
		}
	}
	live := size()
	var b []byte // as a beat a second for hours leaves
	for o.size+int64(len(b)) < o.limit-live {
		b = appendFrame(b, o.items[record.ReportKey("web", "a")])
	}
	if _, err := o.file.Write(b); err != nil {
		t.Fatal(err)
	}
	o.size += int64(len(b))
	for i := range 10 {
		if err := o.report("a", fmt.Sprint("disk ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := size(); got != o.size || got > 10*live {
		t.Errorf("the log has %d bytes, of which %d are known and about %d live", got, o.size, live)
	}
	if err := o.file.Close(); err != nil { // a write fails
		t.Fatal(err)
	}
	if err := o.report("b", "cpu"); err == nil {
		t.Error("a failure was not told")
	}
	if err := o.report("b", "net"); err != nil {
		t.Error(err)
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	if err := o.report("c", "disk"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: got %v", err)
	}
	items := openTestOrigin(t, dir).items
	for id, want := range map[string]string{"a": "disk 9", "b": "net"} {
		if rep, err := record.DecodeReport(items[record.ReportKey("web", id)].Value); err != nil || rep.Reason != want {
			t.Errorf("%s: got %+v, %v", id, rep, err)
		}
	}
}
