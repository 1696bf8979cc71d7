package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bench is one run of the harness: what it was asked for and what it started.
// It is used by one goroutine.
type bench struct {
	opts   options
	work   workload
	root   string // of the module
	dir    string // temporary, removed at the end
	out    io.Writer
	undo   teardown
	built  map[string]string // package to program
	client *http.Client

	etcd     *process
	agent    *process // fluid-agent
	etcdURL  string
	agentURL string // of fluid-agent's HTTP interface
	socket   string // of its feed
}

// newBench makes the temporary directory. The caller runs undo at the end.
func newBench(opts options, out io.Writer) (*bench, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "benchdns.")
	if err != nil {
		return nil, err
	}
	b := &bench{
		opts: opts, root: root, dir: dir, out: out, built: map[string]string{}, client: &http.Client{Timeout: 30 * time.Second},
		work: workload{Zone: "fluid.internal", Services: opts.services, Instances: opts.instances, TTL: opts.ttl},
	}
	b.undo.push(func() { _ = os.RemoveAll(dir) })
	b.undo.push(b.client.CloseIdleConnections)
	return b, nil
}

// moduleRoot finds the go.mod above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("run it inside the module: no go.mod here or above")
		}
		dir = up
	}
}

func (b *bench) logf(format string, args ...any) { fmt.Fprintf(b.out, format+"\n", args...) }

// start runs a server until the end of the run.
func (b *bench) start(name, cpus string, env []string, argv ...string) (*process, error) {
	p, err := startProcess(b.dir, name, cpus, env, argv...)
	if err != nil {
		return nil, err
	}
	b.undo.push(p.stop)
	return p, nil
}

// write writes the workload once to the file name and returns its path.
func (b *bench) write(name string, format func(io.Writer, workload) error) (string, error) {
	path := filepath.Join(b.dir, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return "", err
	}
	err = format(f, b.work)
	return path, errors.Join(err, f.Close())
}

// program returns given, or else builds the package.
func (b *bench) program(ctx context.Context, given, name, pkg string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	return b.build(ctx, name, pkg)
}

// build builds a package of the module, once, with the build's default flags.
func (b *bench) build(ctx context.Context, name, pkg string) (string, error) {
	if path, ok := b.built[pkg]; ok {
		return path, nil
	}
	b.logf("  building %s", pkg)
	path := filepath.Join(b.dir, "bin-"+name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, pkg)
	cmd.Dir = b.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, tail(out, 5))
	}
	b.built[pkg] = path
	return path, nil
}

// get succeeds if url answers with a success.
func (b *bench) get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	return b.do(req)
}

// post sends value as JSON.
func (b *bench) post(ctx context.Context, url string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return b.postBytes(ctx, url, body)
}

// postBytes sends body, which is JSON.
func (b *bench) postBytes(ctx context.Context, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	return b.do(req)
}

func (b *bench) do(req *http.Request) error {
	resp, err := b.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && !okay(resp.StatusCode) {
		err = fmt.Errorf("%s %s: %s: %.300s", req.Method, req.URL.Path, resp.Status, strings.TrimSpace(string(text)))
	}
	return err
}
