package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fluidctl": main})
}

// Each script has an agent of its own, at FLUID_ADDR, and a DNS server that
// knows checkout.fluid.internal, at FLUID_DNS. That of keys has another agent,
// in a mesh with a key, at MESH.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			a, err := startAgent(env)
			if err != nil {
				return err
			}
			if filepath.Base(env.WorkDir) == "script-keys" {
				m, err := startAgent(env, inMesh)
				if err != nil {
					return err
				}
				env.Setenv("MESH", m.HTTP())
			}
			server, err := startDNS(env)
			if err != nil {
				return err
			}
			env.Setenv("FLUID_ADDR", a.HTTP())
			env.Setenv("ADMIN", "unix:"+a.Admin())
			env.Setenv("FLUID_DNS", server)
			return nil
		},
	})
}

func inMesh(cfg *agent.Config) {
	cfg.Gossip.Impl, cfg.Gossip.Bind = "crdt", "127.0.0.1:0"
	cfg.Gossip.KeyHex = "00112233445566778899aabbccddeeff"
}

func startAgent(env *testscript.Env, edit ...func(*agent.Config)) (*agent.Agent, error) {
	dir, err := os.MkdirTemp("", "fluid") // short, for the sockets in it
	if err != nil {
		return nil, err
	}
	env.Defer(func() { _ = os.RemoveAll(dir) })
	cfg := agent.Default()
	cfg.Node, cfg.DataDir, cfg.Socket = "node1", filepath.Join(dir, "data"), filepath.Join(dir, "agent.sock")
	cfg.HTTPBind, cfg.Raft.Bind = "127.0.0.1:0", "127.0.0.1:0"
	for _, e := range edit {
		e(&cfg)
	}
	a, err := agent.Start(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	env.Defer(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			env.T().Log("stop agent: ", err)
		}
	})
	c, err := api.NewClient(a.HTTP(), "", nil)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		h, err := c.Ready(context.Background())
		switch {
		case err != nil:
			return nil, err
		case h.Status == "ready" && h.Checks["leader"] == cfg.Node:
			return a, nil
		case time.Now().After(deadline):
			return nil, fmt.Errorf("the agent is not ready: %+v", h)
		}
	}
}

// startDNS serves one A record on UDP.
func startDNS(env *testscript.Env) (string, error) {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	a, err := dns.NewRR("checkout.fluid.internal. 5 IN A 10.0.0.9")
	if err != nil {
		return "", err
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.SetEdns0(1232, false)
		switch {
		case q.Question[0].Name != a.Header().Name:
			m.Rcode = dns.RcodeNameError
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeStaleAnswer, ExtraText: "agent gone"})
		case slices.Contains([]uint16{dns.TypeA, dns.TypeANY}, q.Question[0].Qtype):
			m.Answer = []dns.RR{a}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = srv.ActivateAndServe() }()
	env.Defer(func() { _ = srv.Shutdown() })
	return pc.LocalAddr().String(), nil
}

func TestRewrite(t *testing.T) {
	for _, tc := range []struct {
		name     string
		in, want []string
	}{
		{"the original", []string{"-app", "checkout", "-ip", "10.0.0.9"}, []string{"--app", "checkout", "--ip", "10.0.0.9"}},
		{"with =", []string{"-app=checkout", "-ip=10.0.0.9"}, []string{"--app=checkout", "--ip=10.0.0.9"}},
		{"version", []string{"-version"}, []string{"--version"}},
		{"two dashes stay", []string{"--app", "a", "--ip", "b"}, []string{"--app", "a", "--ip", "b"}},
		{"after a flag with a value", []string{"-o", "json", "-app", "a"}, []string{"-o", "json", "--app", "a"}},
		{"after a joined value", []string{"-ojson", "-app", "a"}, []string{"-ojson", "--app", "a"}},
		{"a value that looks like a flag", []string{"--addr", "-app", "-ip", "b"}, []string{"--addr", "-app", "--ip", "b"}},
		{"not after a subcommand", []string{"get", "-app", "a"}, []string{"get", "-app", "a"}},
		{"a subcommand after values", []string{"--output", "json", "list", "-version"}, []string{"--output", "json", "list", "-version"}},
		{"after --", []string{"--", "-app"}, []string{"--", "-app"}},
		{"nothing", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := rewrite(newRoot(&ctl{}), tc.in); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestParseTarget(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want target
		ok   bool
	}{
		{"checkout", target{service: "checkout"}, true},
		{"checkout/10.0.0.9", target{service: "checkout", instance: "10.0.0.9"}, true},
		{"checkout/fd00::1-80", target{service: "checkout", instance: "fd00::1-80"}, true},
		{"service:checkout", target{service: "checkout"}, true},
		{"node:host-1", target{node: "host-1"}, true},
		{"", target{}, false},
		{"checkout/", target{}, false},
		{"node:", target{}, false},
		{"zone:z1", target{}, false},
		{"service:a/b", target{}, false},
	} {
		got, err := parseTarget(tc.in)
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%q: got %+v, %v, want %+v", tc.in, got, err, tc.want)
		}
	}
}
