package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// process is a server that the harness started, in a process group of its own.
type process struct {
	name    string
	log     string // path of what it wrote
	cmd     *exec.Cmd
	started time.Time
	done    chan struct{} // closed when it has ended
}

// startProcess runs argv on the processors cpus, with env added to the
// environment, and writes what it says to a file in dir.
func startProcess(dir, name, cpus string, env []string, argv ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	// Not CommandContext: a process ends by stop, after what depends on it.
	p.cmd = exec.Command("taskset", append([]string{"-c", cpus}, argv...)...) //nolint:noctx // see above
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its log says why it ended
	}()
	return p, nil
}

// pid is the process's id; taskset replaces itself by the server.
func (p *process) pid() int { return p.cmd.Process.Pid }

// ended tells whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the process and those it started: by SIGTERM, after 5 s by SIGKILL.
func (p *process) stop() {
	_ = syscall.Kill(-p.pid(), syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // what is left of the group
	<-p.done
}

// failure says that the process did not do what it should, with its last words.
func (p *process) failure(err error) error {
	text, _ := os.ReadFile(p.log)
	return fmt.Errorf("%s: %w; it wrote:\n%s", p.name, err, tail(text, 12))
}

// ready waits until check returns nil, for at most limit, or until p ends.
func (p *process) ready(ctx context.Context, limit time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.failure(errors.New("it ended"))
		case <-ctx.Done():
			return p.failure(fmt.Errorf("not ready: %w (%w)", err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// freePort returns a port of 127.0.0.1 that neither TCP nor UDP uses.
func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	var last error
	for range 20 {
		tcp, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		udp, err := lc.ListenPacket(ctx, "udp", tcp.Addr().String())
		if err == nil {
			err = udp.Close()
		}
		_ = tcp.Close()
		if err == nil {
			return tcp.Addr().(*net.TCPAddr).Port, nil
		}
		last = err
	}
	return 0, fmt.Errorf("no free port: %w", last)
}

// teardown is a stack of what must be undone, the last first.
type teardown []func()

func (t *teardown) push(f func()) { *t = append(*t, f) }

func (t *teardown) run() {
	for _, undo := range slices.Backward(*t) {
		undo()
	}
	*t = nil
}
