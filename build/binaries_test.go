package build_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// binaries builds the three programs once and returns their directory.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("bin")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("make", "--no-print-directory", "build")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return dir, nil
})

func binDir(t *testing.T) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// userEnv is the environment of a new user: no Fluid setting, all state in a
// directory of its own, the programs on the path.
func userEnv(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	env := []string{
		"PATH=" + binDir(t) + ":" + os.Getenv("PATH"),
		"TMPDIR=" + dir,
		"FLUID_DATA_DIR=" + filepath.Join(dir, "data"),
		"FLUID_SOCKET=" + filepath.Join(dir, "run", "agent.sock"),
	}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "FLUID_"), strings.HasPrefix(name, "RAFT_"), strings.HasPrefix(name, "GOSSIP_"):
		case name == "PATH", name == "TMPDIR":
		default:
			env = append(env, kv)
		}
	}
	return env
}

// command prepares a program that is stopped with its children when the test
// ends, and whose output is shown if the test failed.
func command(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	var out lockedBuilder
	cmd := exec.Command(name, args...)
	cmd.Dir = ".."
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s %s:\n%s", name, strings.Join(args, " "), out.String())
		}
	})
	return cmd
}

// start runs a program in the background until the test ends.
func start(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := command(t, env, name, args...)
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		stopped := time.AfterFunc(15*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		defer stopped.Stop()
		_ = cmd.Wait()
	})
	return cmd
}

type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// eventually retries f until it returns nil, for at most 20 s.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// ask returns the first A record of a name, or the rcode as an error.
func ask(server, name string) (string, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	r, err := dns.Exchange(m, server)
	if err != nil {
		return "", err
	}
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			return a.A.String(), nil
		}
	}
	return "", errors.New(dns.RcodeToString[r.Rcode])
}

// want returns a function for eventually: server answers name with addr.
func want(server, name, addr string) func() error {
	return func() error {
		got, err := ask(server, name)
		if err == nil && got != addr {
			err = errors.New("got " + got)
		}
		return err
	}
}

// freePort returns a port that nobody uses, neither for TCP nor for UDP.
func freePort(t *testing.T) string {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		_ = l.Close()
		if err == nil {
			_ = pc.Close()
			return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		}
	}
	t.Fatal("no free port")
	return ""
}

var _ io.Writer = (*lockedBuilder)(nil)
