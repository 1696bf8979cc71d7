package agenttest

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"
)

// bin is where TestMain puts the programs; every user can read it.
var bin string

func TestMain(m *testing.M) {
	if dir := os.Getenv(smallDiskEnv); dir != "" {
		runOnSmallDisk(dir)
	}
	flag.Parse()
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code) //nolint:forbidigo // the end of the test binary
}

// lookAtSources stats every source file that the programs are built from, so
// that go test does not take a cached result for one of other sources.
func lookAtSources() error {
	for _, dir := range []string{"agent", "plugin", "build"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err == nil && filepath.Ext(path) == ".go" {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// buildAndRun builds the three programs once for all tests.
func buildAndRun(m *testing.M) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir, err := os.MkdirTemp("", "fluid-agenttest")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // another user runs them in some tests
		return 1, err
	}
	bin = dir
	if err := lookAtSources(); err != nil {
		return 1, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", raceFlag, "-o", dir+string(filepath.Separator),
		"./agent/cmd/fluid-agent", "./agent/cmd/fluidctl", "./build/coredns")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return m.Run(), nil
}
