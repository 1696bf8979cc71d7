package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	tests := []struct{ name, args, want string }{
		{"defaults", "", ""},
		{"all", "-services 5 -instances 2 -rounds 1 -seconds 1s -peers fluid,nsd -zipf 0.9 -names zipf -churn 10", ""},
		{"a variant without a program", "-variant before", "NAME=PROGRAM"},
		{"an argument", "x", `"x"`},
		{"an unknown flag", "-x", "-x"},
		{"an unknown peer", "-peers bind", `"bind"`},
		{"an unknown distribution", "-names normal", `"normal"`},
		{"no service", "-services 0", "-services"},
		{"no round", "-rounds 0", "-rounds"},
		{"too many addresses", "-services 10000000 -instances 3", "do not fit"},
		{"too large answers", "-instances 51", "do not fit"},
		{"no time", "-seconds 0s", "-seconds"},
		{"changes without fluid", "-peers nsd -churn 1", "needs fluid"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseOptions(strings.Fields(test.args), io.Discard)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if _, err := parseOptions([]string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: got %v", err)
	}
}

func TestOptionLists(t *testing.T) {
	o, err := parseOptions([]string{"-chain", "bufsize 1232; errors ;prometheus 127.0.0.1:0"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"bufsize 1232", "errors", "prometheus 127.0.0.1:0"}; !slices.Equal(o.chain, want) {
		t.Errorf("chain: got %q, want %q", o.chain, want)
	}
	if o.peers[0] != fluid || len(o.peers) != len(peers()) {
		t.Errorf("peers: got %q", o.peers)
	}
}

func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
}

// A server's children end with it.
func TestStopEndsTheGroup(t *testing.T) {
	needs(t, "taskset", "sh")
	dir := t.TempDir()
	p, err := startProcess(dir, "parent", "0", []string{"CHILD=" + filepath.Join(dir, "child")}, "sh", "-c",
		`trap "" TERM; sleep 300 & echo $! >"$CHILD.new"; mv "$CHILD.new" "$CHILD"; wait; exit 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	var child string
	err = p.ready(t.Context(), 10*time.Second, func() error {
		child, err = readText(filepath.Join(dir, "child"))
		if err == nil && child == "" {
			err = errors.New("no child yet")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := processTime(p.pid()); err != nil || got.total() > time.Minute {
		t.Errorf("time of the group: got %v, %v", got, err)
	}
	p.stop()
	if !p.ended() {
		t.Error("the process is still there")
	}
	deadline := time.Now().Add(10 * time.Second) // a killed process takes a moment to go
	for {
		state, err := readText(filepath.Join("/proc", child, "stat"))
		if err != nil || state == "" || strings.Contains(state, ") Z ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("its child is still there: %s", state)
		}
		runtime.Gosched()
	}
	p.stop() // once more does no harm
}

func TestReadyNamesTheReason(t *testing.T) {
	needs(t, "taskset", "sh")
	p, err := startProcess(t.TempDir(), "short", "0", nil, "sh", "-c", "echo no such zone >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	err = p.ready(t.Context(), 10*time.Second, func() error { return errors.New("no answer") })
	if err == nil || !strings.Contains(err.Error(), "no such zone") {
		t.Errorf("got %v, want the process's last words", err)
	}
}

func TestTeardownIsLIFO(t *testing.T) {
	var order []int
	var undo teardown
	for i := range 3 {
		undo.push(func() { order = append(order, i) })
	}
	undo.run()
	undo.run()
	if want := []int{2, 1, 0}; !slices.Equal(order, want) {
		t.Errorf("got %v, want %v", order, want)
	}
}

// The whole way with the peers that need no package but dnsperf: build, start,
// verify, measure, report, clean up.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts servers")
	}
	needs(t, "dnsperf", "taskset")
	t.Setenv("TMPDIR", t.TempDir())
	out := t.TempDir()
	var shown strings.Builder
	args := strings.Fields("-peers constant,hosts,file,file+cache -services 100 -rounds 1 -seconds 100ms -latency 100ms -names zipf -queries 100 -timeout 5m -out " + out)
	if err := run(t.Context(), args, &shown); err != nil {
		t.Fatalf("%v\n%s", err, &shown)
	}
	text, err := os.ReadFile(filepath.Join(out, "results.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"constant", "hosts", "file", "file+cache"} {
		if !strings.Contains(string(text), "\n| "+name+" | ") {
			t.Errorf("%s is not in the table:\n%s", name, text)
		}
	}
	left, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "benchdns.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// An interrupt in the middle of a measurement leaves nothing behind.
func TestRunInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts servers")
	}
	needs(t, "dnsperf", "taskset")
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	shown := &watcher{text: "measuring", found: cancel}
	args := strings.Fields("-peers constant -services 100 -rounds 1 -seconds 60s -names zipf -queries 100 -timeout 5m -out " + t.TempDir())
	if err := run(ctx, args, shown); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	left, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "benchdns.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What was measured before an interrupt is reported.
func TestRunInterruptedLate(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts servers")
	}
	needs(t, "dnsperf", "taskset")
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	out := t.TempDir()
	shown := &watcher{text: "zipf     2  constant", found: cancel}
	args := strings.Fields("-peers constant -services 100 -rounds 100 -seconds 100ms -rate 0 -names zipf -queries 100 -timeout 5m -out " + out)
	if err := run(ctx, args, shown); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	text, err := os.ReadFile(filepath.Join(out, "results.md"))
	if err != nil || !strings.Contains(string(text), "zipf, exponent 1; 2 rounds, then") {
		t.Errorf("got %v:\n%s", err, text)
	}
}

// watcher calls found when text is written.
type watcher struct {
	text  string
	found func()
}

func (w *watcher) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.found()
	}
	return len(p), nil
}

// A peer that is not there is named, a tool that is not there ends the run.
func TestProvide(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var shown strings.Builder
	b := &bench{opts: options{peers: []string{"fluid", "nsd", "etcd", "etcd+cache"}}, out: &shown}
	if _, err := b.provide(t.Context()); err == nil || !strings.Contains(err.Error(), "dnsperf") {
		t.Errorf("without dnsperf: got %v", err)
	}
	for _, tool := range tools.programs {
		if err := os.WriteFile(filepath.Join(os.Getenv("PATH"), tool), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	absent, err := b.provide(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range absent {
		names = append(names, a.Peer)
		if !strings.HasPrefix(a.Reason, "not installed: ") || !strings.Contains(a.Reason, "apt-get install") {
			t.Errorf("%s: %s", a.Peer, a.Reason)
		}
	}
	if want := []string{"etcd", "etcd+cache", "nsd"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}
