package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/pki"
)

// The files of tls init and tls issue, put where their settings say, make a
// cluster of two over mutual TLS that fluidctl reaches with its own.
func TestTLSFilesAreUsable(t *testing.T) {
	keys := t.TempDir()
	common, err := tlsInit(keys, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	settings := func(list ...madeFiles) (env []string, by map[string]string) {
		by = map[string]string{}
		for _, m := range list {
			for _, f := range m.Files {
				for _, s := range f.Settings {
					by[s] = f.Path
				}
			}
		}
		for s, path := range by {
			env = append(env, s+"="+path)
		}
		return env, by
	}
	start := func(name, join string, validity time.Duration) *agent.Agent {
		own, err := tlsIssue(keys, keys, pki.Request{
			Identity: pki.Identity{Name: name}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Validity: validity,
		}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.MkdirTemp("", "fluid") // short, for the sockets in it
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		env, _ := settings(common, own)
		env = append(env, "RAFT_ID="+name, "RAFT_BIND=127.0.0.1:0", "FLUID_HTTP_BIND=127.0.0.1:0", "RAFT_JOIN_URL="+join,
			"FLUID_DATA_DIR="+filepath.Join(dir, "data"), "FLUID_SOCKET="+filepath.Join(dir, "agent.sock"))
		cfg, warnings, err := agent.Load(nil, env)
		if err != nil || len(warnings) > 0 {
			t.Fatalf("load: %v, warnings %v", err, warnings)
		}
		a, err := agent.Start(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := a.Stop(ctx); err != nil {
				t.Errorf("stop %s: %v", name, err)
			}
		})
		return a
	}
	a1 := start("node1", "", 0)
	a2 := start("node2", a1.HTTP(), 20*24*time.Hour)

	_, by := settings(common)
	ctl := func(args ...string) (string, int) {
		var out, errs bytes.Buffer
		args = append(args, "--addr", a2.HTTP(), "--ca-file", by["FLUID_TLS_CA_FILE"], "--token-file", by["FLUID_TOKEN_FILE"])
		code := run(args, strings.NewReader(""), &out, &errs)
		return out.String() + errs.String(), code
	}
	if out, code := ctl("register", "checkout", "--ip", "10.0.0.9"); code != 0 {
		t.Fatalf("register: %d %s", code, out)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, _ := ctl("doctor")
		if strings.Contains(out, "server node2") && !strings.Contains(out, "problem") {
			for _, want := range []string{
				"server node1: http certificate  ok       expires 2", "server node1: raft certificate  ok       expires 2",
				"server node2: raft certificate  warning  expires SOON, at 2",
			} {
				if !strings.Contains(out, want) {
					t.Errorf("doctor does not say %q:\n%s", want, out)
				}
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("node2 has not joined:\n%s", out)
		}
	}
	if out, code := ctl("list"); code != 0 || !strings.Contains(out, "checkout") {
		t.Errorf("list: %d %s", code, out)
	}

	var out, errs bytes.Buffer
	if code := run([]string{"list", "--addr", a1.HTTP(), "--token-file", by["FLUID_TOKEN_FILE"]}, strings.NewReader(""), &out, &errs); code != 1 ||
		!strings.Contains(errs.String(), "unknown authority") {
		t.Errorf("list without the authority: %d %s", code, errs.String())
	}
	if code := run([]string{"list", "--ca-file", by["FLUID_TOKEN_FILE"]}, strings.NewReader(""), &out, &errs); code != 1 ||
		!strings.Contains(errs.String(), "holds no PEM certificate") {
		t.Errorf("list with a token as authority: %d %s", code, errs.String())
	}
}
