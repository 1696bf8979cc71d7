package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is one program under test.
type server struct {
	name    string
	program string // looked up in PATH; empty: CoreDNS
	// files returns the configuration and the arguments that use it.
	config func(d *data, port int) (text string, args func(path string) []string)
	etcd   bool
}

func corefile(text string) func(*data, int) (string, func(string) []string) {
	return func(d *data, port int) (string, func(string) []string) {
		r := strings.NewReplacer("HOSTS", d.hosts, "ZONE", d.zone, "SOCKET", d.socket)
		return fmt.Sprintf("%s:%d {\n bind 127.0.0.1\n %s\n}\n", zone, port, r.Replace(text)),
			func(path string) []string { return []string{"-conf", path} }
	}
}

func servers() []server {
	const etcd = "etcd {\n endpoint http://127.0.0.1:" + etcdPort + "\n}"
	return []server{
		{name: "fluid", config: corefile("fluid {\n agent SOCKET\n }")},
		{name: "hosts", config: corefile("hosts HOSTS {\n ttl 5\n }")},
		{name: "file", config: corefile("file ZONE")},
		{name: "file+cache", config: corefile("cache\n file ZONE")},
		{name: "etcd", config: corefile(etcd), etcd: true},
		{name: "etcd+cache", config: corefile("cache\n " + etcd), etcd: true},
		{name: "knot", program: "knotd", config: knot},
		{name: "nsd", program: "nsd", config: nsd},
	}
}

func knot(d *data, port int) (string, func(string) []string) {
	return fmt.Sprintf("server:\n  listen: 127.0.0.1@%d\n  rundir: %s\n  udp-workers: 1\ndatabase:\n  storage: %s\nzone:\n  - domain: %s\n    file: %s\n",
		port, d.dir, d.dir, zone, d.zone), func(path string) []string { return []string{"-c", path} }
}

func nsd(d *data, port int) (string, func(string) []string) {
	return fmt.Sprintf("server:\n  ip-address: 127.0.0.1@%d\n  username: \"\"\n  zonesdir: %s\n  database: \"\"\n  pidfile: \"\"\n  zonelistfile: %s/zones\n  xfrdfile: %s/xfrd\n  xfrdir: %s\n  server-count: 1\nremote-control:\n  control-enable: no\nzone:\n  name: %s\n  zonefile: %s\n",
		port, d.dir, d.dir, d.dir, d.dir, zone, d.zone), func(path string) []string { return []string{"-d", "-c", path} }
}

// missing says why a server cannot be measured here, "" if it can.
func (s server) missing(cfg config) string {
	program := s.program
	if program == "" {
		program = cfg.coredns
	}
	if _, err := exec.LookPath(program); err != nil {
		return err.Error()
	}
	if !s.etcd {
		return ""
	}
	if _, err := exec.LookPath("etcd"); err != nil {
		return err.Error()
	}
	out, err := exec.CommandContext(context.Background(), cfg.coredns, "-plugins").Output()
	if err != nil || !strings.Contains(string(out), "dns.etcd") {
		return "CoreDNS is built without etcd; build it with -tags etcd"
	}
	return ""
}

// process is a server that runs.
type process struct {
	cmd     *exec.Cmd
	port    int
	backend *exec.Cmd
}

// launch starts a server on the first processor and waits until it answers.
func (s server) launch(ctx context.Context, cfg config, d *data) (*process, error) {
	p := &process{}
	if s.etcd {
		var err error
		if p.backend, err = startEtcd(ctx, d); err != nil {
			return nil, err
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p.port = l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	text, args := s.config(d, p.port)
	path := filepath.Join(d.dir, "conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return nil, err
	}
	program := s.program
	if program == "" {
		program = cfg.coredns
	}
	p.cmd = exec.CommandContext(ctx, "taskset", append([]string{"-c", "0", program}, args(path)...)...)
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	var log strings.Builder
	p.cmd.Stdout, p.cmd.Stderr = &log, &log
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	if err := p.answering(ctx, d); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, log.String()), p.stop())
	}
	return p, nil
}

func (p *process) answering(ctx context.Context, d *data) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for range 200 {
		if last = ask(p.port, d.name(1)+"."+zone, d.instances); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return fmt.Errorf("no answer within 20 s: %w", last)
}

func (p *process) stop() error {
	var errs []error
	for _, cmd := range []*exec.Cmd{p.cmd, p.backend} {
		if cmd == nil || cmd.Process == nil {
			continue
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			var exit *exec.ExitError
			if !errors.As(err, &exit) { // some exit with the signal
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

var (
	completed = regexp.MustCompile(`Queries completed:\s+(\d+)`)
	noError   = regexp.MustCompile(`NOERROR (\d+)`)
	perSecond = regexp.MustCompile(`Queries per second:\s+([\d.]+)`)
)

// load asks a number of questions from the last processor.
func (p *process) load(ctx context.Context, file string, queries int) (cost, error) {
	last := strconv.Itoa(max(1, processors()-1))
	out, err := exec.CommandContext(ctx, "taskset", "-c", last, "dnsperf", "-s", "127.0.0.1", "-p", strconv.Itoa(p.port),
		"-d", file, "-n", strconv.Itoa(max(1, queries/50_000)), "-c", "4", "-q", "40", "-e").CombinedOutput()
	if err != nil {
		return cost{}, fmt.Errorf("dnsperf: %w: %s", err, out)
	}
	var c cost
	if m := perSecond.FindSubmatch(out); m != nil {
		c.rate, _ = strconv.ParseFloat(string(m[1]), 64)
	}
	done, good := completed.FindSubmatch(out), noError.FindSubmatch(out)
	if done == nil || good == nil || string(done[1]) != string(good[1]) {
		return cost{}, fmt.Errorf("not every query was answered: %s", out)
	}
	c.answered, err = strconv.Atoi(string(done[1]))
	return c, err
}
