package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// takeProfile loads a CoreDNS with the first distribution of names and writes a
// profile of its processor time, for go tool pprof.
func (b *bench) takeProfile(ctx context.Context, e entrant) error {
	const length = 10 * time.Second
	b.logf("profiling %s for %s", e.name, length)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	loaded := make(chan error, 1)
	go func() {
		file := filepath.Join(b.dir, "queries-"+b.opts.names[0])
		_, err := dnsperf(ctx, b.opts.clientCPUs, load{port: e.port, file: file, limit: length + time.Second})
		loaded <- err
	}()
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", e.pprof, int(length.Seconds()))
	err := os.MkdirAll(b.opts.profile, 0o755)
	if err == nil {
		err = download(ctx, url, filepath.Join(b.opts.profile, e.name+".pprof"))
	}
	if err != nil {
		stop()
		<-loaded
		return fmt.Errorf("profile: %w", err)
	}
	return <-loaded
}

// download writes what url answers to path.
func download(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !okay(resp.StatusCode) {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, resp.Body); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
