package agenttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// machine is a host with a network, a /run and a /var/lib of its own, on which
// every default port and path is free.
type machine struct {
	t      testing.TB
	holder *process // keeps them
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network of its own")
	}
	m := &machine{t: t}
	m.holder = start(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}, os.Environ(), "/bin/sh", "-euc", `
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
ip link set lo up
echo made
exec sleep infinity`)
	eventually(t, "a machine", func() bool {
		(&host{t: t}).alive(m.holder)
		return m.holder.out.String() == "made\n"
	})
	return m
}

// line returns how to run a line of a shell there: with the programs in the
// PATH and no other setting than those on the line.
func (m *machine) line(line string) (env, args []string) {
	return []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=/root"},
		[]string{"-t", fmt.Sprint(m.holder.cmd.Process.Pid), "-n", "-m", "/bin/sh", "-c", line}
}

// start runs a command in the background, with settings as in a shell.
func (m *machine) start(settings, command string) *process {
	m.t.Helper()
	env, args := m.line(settings + " exec " + command) // the process that is killed is the command
	return start(m.t, nil, env, "/usr/bin/nsenter", args...)
}

// try runs a line and returns what it printed, and whether it succeeded.
func (m *machine) try(line string) (string, bool) {
	m.t.Helper()
	env, args := m.line(line)
	cmd := exec.Command("/usr/bin/nsenter", args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// TestOriginalCommands types what the original's users typed for two nodes on
// one machine, to the letter, and registers as they did. Both nodes list the
// instance, and both are voters of one cluster.
func TestOriginalCommands(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start("RAFT_BIND=127.0.0.1:11000 RAFT_ID=node1 RAFT_BOOTSTRAP=true", "fluid-agent")
	eventually(t, "node1 is up", func() bool { _, ok := m.try("fluidctl status"); return ok })
	m.start("RAFT_BIND=127.0.0.1:11001 RAFT_ID=node2 RAFT_JOIN_URL=http://127.0.0.1:18080", "fluid-agent")
	eventually(t, "two voters", func() bool {
		out, _ := m.try("fluidctl raft list")
		return strings.Count(out, " voter ") == 2 && strings.Contains(out, "127.0.0.1:11000") && strings.Contains(out, "127.0.0.1:11001")
	})

	if out, ok := m.try("fluidctl -app checkout -ip 10.0.0.9"); !ok {
		t.Fatalf("fluidctl -app checkout -ip 10.0.0.9: %s", out)
	}
	for node, at := range map[string]string{"node1": "", "node2": "--addr http://127.0.0.1:18081 "} {
		eventually(t, node+" lists it", func() bool {
			out, ok := m.try("fluidctl " + at + "get checkout")
			return ok && strings.Contains(out, "10.0.0.9")
		})
	}
	found, err := filepath.Glob(m.holder.on("/var/lib/fluid/node*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	if want := []string{"node1", "node2"}; !slices.Equal(found, want) {
		t.Errorf("in /var/lib/fluid: got %v, want %v", found, want)
	}
}
