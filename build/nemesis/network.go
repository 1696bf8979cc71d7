package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// insideEnv marks the second run of the program, in namespaces of its own.
const insideEnv = "FLUID_NEMESIS_INSIDE"

const maxAgents = 7

// reenter runs the program again in new namespaces: of the network, so that
// nothing of this host is touched; of mounts, for the names of further network
// namespaces; and of processes, so that the kernel ends all agents with it.
func reenter(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: gid, Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		_, _ = fmt.Fprintln(stderr, "nemesis: cannot make namespaces, which takes root or user namespaces:", err)
		return 1
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "nemesis:", err)
		return 1
	}
	return 0
}

// network is a switch, with this process at it and each agent in a network
// namespace of its own. Agents are counted from 1.
type network struct{ n int }

// Addresses of the hosts at the switch. Nobody has the address nowhere.
func ip(i int) string  { return fmt.Sprintf("10.55.0.%d", i) }
func mac(i int) string { return fmt.Sprintf("02:00:00:00:00:%02x", i) }

const (
	us      = 254
	nowhere = 255
)

func namespace(i int) string { return fmt.Sprintf("n%d", i) }

func newNetwork(ctx context.Context, n int) (*network, error) {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE}, // nothing below is seen outside
		{"proc", "/proc", "proc", 0},
		{"tmpfs", "/run", "tmpfs", 0}, // ip netns keeps names there
	} {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	lines := []string{
		"link set lo up",
		"link add br0 address " + mac(us) + " type bridge",
		"addr add " + ip(us) + "/24 dev br0",
		"link set br0 up",
	}
	for i := 1; i <= n; i++ {
		lines = append(lines,
			"netns add "+namespace(i),
			fmt.Sprintf("link add v%d type veth peer name eth0 address %s netns %s", i, mac(i), namespace(i)),
			fmt.Sprintf("link set v%d master br0 up", i))
	}
	if err := ipBatch(ctx, "", lines); err != nil {
		return nil, err
	}
	w := &network{n: n}
	for i := 1; i <= n; i++ {
		err := ipBatch(ctx, namespace(i), []string{
			"link set lo up",
			"addr add " + ip(i) + "/24 dev eth0",
			"link set eth0 up",
		})
		if err != nil {
			return nil, err
		}
	}
	return w, w.heal(ctx)
}

// cut drops, from now on and silently, what the agents from send to the agents
// to: connections stay and go quiet, new ones time out. The other direction
// stays open.
func (w *network) cut(ctx context.Context, from, to []int) error {
	return w.point(ctx, from, to, func(int) int { return nowhere })
}

// heal undoes all cuts.
func (w *network) heal(ctx context.Context) error {
	return w.point(ctx, w.all(), w.all(), func(i int) int { return i })
}

// point sets the hardware addresses that agents use for each other.
func (w *network) point(ctx context.Context, from, to []int, at func(int) int) error {
	for _, i := range from {
		var lines []string
		for _, j := range to {
			if i != j {
				lines = append(lines, fmt.Sprintf("neigh replace %s lladdr %s dev eth0 nud permanent", ip(j), mac(at(j))))
			}
		}
		if len(lines) == 0 {
			continue
		}
		if err := ipBatch(ctx, namespace(i), lines); err != nil {
			return err
		}
	}
	return nil
}

// all returns the numbers of all agents.
func (w *network) all() []int {
	all := make([]int, w.n)
	for i := range all {
		all[i] = i + 1
	}
	return all
}

// ipBatch gives lines to ip(8), in a namespace if it is not empty.
func ipBatch(ctx context.Context, namespace string, lines []string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
