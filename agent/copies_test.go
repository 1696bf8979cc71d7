package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
)

func snapshotCopies(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "fluid-*.snap"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func inspect(t *testing.T, path string) api.SnapshotInfo {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := api.InspectSnapshot(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return info
}

// Copies of what is committed appear by themselves, each whole, the newest stay,
// and what others keep in the directory is left alone.
func TestSnapshotCopies(t *testing.T) {
	cfg := testConfig(t)
	dir := filepath.Join(t.TempDir(), "copies")
	cfg.Raft.CopiesDir, cfg.Raft.CopiesInterval, cfg.Raft.CopiesKeep = dir, 5*time.Millisecond, 3
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	leftover := filepath.Join(dir, "fluid-20200101T000000.000Z-1-7.snap.part")
	others := []string{filepath.Join(dir, "before-upgrade.snap"), filepath.Join(dir, "fluid-notes.snap")}
	for _, name := range append(others, leftover) {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	ours := func() []string {
		return slices.DeleteFunc(snapshotCopies(t, dir), func(n string) bool { return slices.Contains(others, n) })
	}
	for i := range 6 {
		done := register(t, c, "web", fmt.Sprintf("10.0.0.%d", i+1))
		eventually(t, "a copy with it", func() bool {
			names := ours()
			return len(names) > 0 && strings.HasSuffix(names[len(names)-1], fmt.Sprintf("-%d-%d.snap", done.Generation, done.Index))
		})
	}
	stop(t, a)
	names := ours()
	if len(names) != 3 {
		t.Errorf("copies: got %v, want the newest 3", names)
	}
	for i, name := range names {
		if info := inspect(t, name); info.Instances != 4+i {
			t.Errorf("%s: got %d instances, want %d", name, info.Instances, 4+i)
		}
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s holds a key: got mode %v, %v, want 0600", name, st.Mode(), err)
		}
	}
	for _, name := range others {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("a file of somebody else: %v", err)
		}
	}
	if _, err := os.Stat(leftover); err == nil {
		t.Error("what an interrupted copy has left is still there")
	}
}

// A directory that cannot be written is said, and the agent goes on.
func TestSnapshotCopiesFail(t *testing.T) {
	cfg := testConfig(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Raft.CopiesDir, cfg.Raft.CopiesInterval = filepath.Join(file, "copies"), 5*time.Millisecond
	c := client(t, start(t, cfg), "")
	leading(t, c)
	eventually(t, "the failure is told", func() bool {
		h, err := c.Ready(t.Context())
		return err == nil && h.Status == "ready" && strings.HasPrefix(h.Checks["snapshot copies"], "FAILED: ")
	})
	register(t, c, "web", "10.0.0.1")
}
