package agenttest

import (
	"context"
	"flag"
	"fmt"
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

// buildAndRun builds the three programs once for all tests.
func buildAndRun(m *testing.M) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir, err := os.MkdirTemp("", "fluid-agenttest")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // another user runs them in some tests
		return 1, err
	}
	bin = dir
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator),
		"./agent/cmd/fluid-agent", "./agent/cmd/fluidctl", "./build/coredns")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return m.Run(), nil
}
