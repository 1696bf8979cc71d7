package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/record"
)

func TestSecondAgentOnTheDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, testConfig(dir))
	_, err := Open(testConfig(dir))
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("got %v, want ErrLocked naming the process", err)
	}
}

// filled fills a data directory, which then has a snapshot and a log.
func filled(t *testing.T, dir string, segment int) (want State) {
	t.Helper()
	cfg := testConfig(dir)
	cfg.segmentSize = segment
	s := open(t, cfg)
	for i := range 5 {
		register(t, s, instance("a", fmt.Sprintf("10.0.0.%d", i+1)))
	}
	if err := s.node().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		register(t, s, instance("b", fmt.Sprintf("10.0.0.%d", i+1)))
	}
	want = s.State()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return want
}

func TestDamagedDirectory(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   error
		says   string
	}{
		{"server id garbled", func(t *testing.T, dir string) { write(t, dir, idFile, "nonsense") }, ErrCorrupt, "server-id"},
		{"server id missing", func(t *testing.T, dir string) { remove(t, dir, idFile) }, ErrCorrupt, "server-id is missing"},
		{"log missing", func(t *testing.T, dir string) { remove(t, dir, walDir) }, ErrCorrupt, "log is missing"},
		{"log metadata garbled", func(t *testing.T, dir string) { write(t, dir, walDir+"/meta", "nonsense") }, ErrCorrupt, walDir},
		{"log segment cut", func(t *testing.T, dir string) { truncate(t, one(t, dir, walDir+"/*.wal"), 200) }, ErrCorrupt, "tail is lost"},
		{"log segment missing", func(t *testing.T, dir string) { remove(t, "", one(t, dir, walDir+"/*.wal")) }, ErrCorrupt, "tail is lost"},
		{"log metadata missing", func(t *testing.T, dir string) { remove(t, dir, walDir+"/meta") }, ErrCorrupt, "log is missing"},
		{"log metadata cut to one copy", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, walDir, "meta"), slotSize) }, nil, ""},
		{"snapshot garbled, log whole", func(t *testing.T, dir string) { flip(t, one(t, dir, snapshotDir+"/*.snap"), 400) }, nil, ""},
		{"snapshot metadata garbled, log whole", func(t *testing.T, dir string) { flip(t, one(t, dir, snapshotDir+"/*.snap"), 30) }, nil, ""},
		{"applied mark garbled", func(t *testing.T, dir string) { write(t, dir, markFile, "nonsense") }, nil, ""},
		{"applied mark missing", func(t *testing.T, dir string) { remove(t, dir, markFile) }, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			want := filled(t, dir, 0)
			tt.damage(t, dir)
			s, err := Open(testConfig(dir))
			if err == nil {
				defer s.Close()
			}
			if tt.want != nil {
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "reset") {
					t.Errorf("got %v, want %v saying %q and how to repair it", err, tt.want, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			waitLeading(t, s)
			if got := s.State(); got.Len() != want.Len() || got.Hash() != want.Hash() {
				t.Errorf("%d entries, hash %x, want %d, %x", got.Len(), got.Hash(), want.Len(), want.Hash())
			}
		})
	}
}

// TestDamageAnywhere flips a bit or cuts a file of the data directory. The
// store must refuse it or come back with all that was written; never with less.
func TestDamageAnywhere(t *testing.T) {
	cases := 1000
	if testing.Short() {
		cases = 200
	}
	if v := os.Getenv("FLUID_DAMAGE_CASES"); v != "" {
		if _, err := fmt.Sscan(v, &cases); err != nil {
			t.Fatal(err)
		}
	}
	src := memoryDir(t)
	want := filled(t, src, 4<<10) // several segments
	refused := 0
	root := memoryDir(t)
	for i := range cases {
		rnd := rand.New(rand.NewPCG(uint64(i), 7))
		dir := filepath.Join(root, strconv.Itoa(i))
		if err := os.CopyFS(dir, os.DirFS(src)); err != nil {
			t.Fatal(err)
		}
		what := damage(t, dir, rnd)
		cfg := testConfig(dir)
		cfg.Bootstrap = false
		s, err := Open(cfg)
		if err != nil {
			refused++
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "reset") {
				t.Errorf("case %d, %s: %v, want ErrCorrupt and how to repair it", i, what, err)
			}
			remove(t, root, strconv.Itoa(i))
			continue
		}
		got := s.State()
		if err := s.Close(); err != nil {
			t.Errorf("case %d, %s: close: %v", i, what, err)
		}
		remove(t, root, strconv.Itoa(i))
		if got.Hash() != want.Hash() || got.Position() != want.Position() {
			t.Errorf("case %d, %s: opened at %s with hash %x, want %s, %x", i, what, got.Position(), got.Hash(), want.Position(), want.Hash())
		}
	}
	t.Logf("%d of %d cases refused, the others recovered", refused, cases)
}

// damage damages one file and says how. The lock holds no data. The applied
// mark is not cut: without it, a server comes back a write earlier, which
// TestMarkLostRestartIsClose covers.
func damage(t *testing.T, dir string, rnd *rand.Rand) string {
	t.Helper()
	var files []string
	for _, pattern := range []string{idFile, markFile, walDir + "/*", snapshotDir + "/*"} {
		m, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, m...)
	}
	path := files[rnd.IntN(len(files))]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(strings.TrimRight(string(b), "\x00")) // segments are preallocated
	n := rnd.IntN(used)
	if rnd.IntN(3) == 0 && filepath.Base(path) != markFile {
		truncate(t, path, int64(n))
		return fmt.Sprintf("%s cut at %d", filepath.Base(path), n)
	}
	b[n] ^= 1 << rnd.IntN(8)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s bit flip at %d", filepath.Base(path), n)
}

func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(m) != 1 {
		t.Fatalf("%s: %v, %v", pattern, m, err)
	}
	return m[0]
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0xff
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestUnusableDirectory: as root, modes do not stop anybody, so the test uses
// what stops root too.
func TestUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, filepath.Dir(file), "file", "")
	for _, tt := range []struct{ name, dir, says string }{
		{"below a file", filepath.Join(file, "x"), "FLUID_DATA_DIR"},
		{"read-only file system", "/proc/self/fluid", "FLUID_DATA_DIR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(testConfig(tt.dir))
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want it to name %s", err, tt.says)
			}
		})
	}
}

func TestFullDiskRefusesWrites(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	s.cfg.MinFree = 1 << 62
	s.roomAt.Store(0)
	before := s.State().Position()
	_, err := s.Register(context.Background(), Meta{}, []record.Instance{instance("a", "10.0.0.1")})
	if !errors.Is(err, ErrDiskFull) || s.State().Position() != before {
		t.Errorf("got %v at %s, want ErrDiskFull at %s", err, s.State().Position(), before)
	}
}

// TestReplayOfALongLog covers what Raft's own RestoreCommittedLogs cannot do:
// more than 128 batches of committed entries without a snapshot.
func TestReplayOfALongLog(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(dir)
	cfg.SnapshotThreshold = 1 << 30
	s := open(t, cfg)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Write the entries into the log directly; one fsync each would take long.
	d, err := openDisk(&s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	last, _ := d.log.LastIndex()
	const n = 130 * maxAppendEntries
	var logs []*raft.Log
	for i := range uint64(n) {
		e := logEntry{time: 1, commands: []string{string((&command{op: opExpire}).append(nil))}}
		logs = append(logs, &raft.Log{Index: last + 1 + i, Term: 2, Type: raft.LogCommand, Data: e.append(nil)})
	}
	if err := d.log.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	d.mark.set(last + n)
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	cfg.Transport = isolated // no election, so nothing but the replay can apply them
	s, err = Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.State().Position().Index; got != last+n {
		t.Errorf("replayed to %d, want %d", got, last+n)
	}
	if len(s.Servers()) != 1 {
		t.Errorf("servers %v: the configuration is lost", s.Servers())
	}
}

// isolated is a transport that reaches nobody, itself included.
func isolated(id string) (raft.Transport, error) {
	_, t := raft.NewInmemTransport(raft.ServerAddress(id))
	return t, nil
}
