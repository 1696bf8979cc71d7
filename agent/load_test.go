package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/fluid-sd/fluid/agent"
)

// load reads a configuration from its three sources.
func load(t *testing.T, yaml string, env, flags []string) (agent.Config, []string, error) {
	t.Helper()
	if yaml != "" {
		env = append(env, "FLUID_CONFIG="+write(t, "agent.yaml", yaml))
	}
	fs := pflag.NewFlagSet("fluid-agent", pflag.ContinueOnError)
	agent.Flags(fs)
	if err := fs.Parse(flags); err != nil {
		t.Fatal(err)
	}
	return agent.Load(fs, env)
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	for _, tc := range []struct {
		name       string
		yaml       string
		env, flags []string
		get        func(agent.Config) any
		want       any
	}{
		{"default", "", nil, nil, func(c agent.Config) any { return c.Gossip.Impl }, "inmemory"},
		{"file over default", "gossip_impl: crdt", nil, nil, func(c agent.Config) any { return c.Gossip.Impl }, "crdt"},
		{"environment over file", "gossip_impl: crdt", []string{"GOSSIP_IMPL=memberlist"}, nil, func(c agent.Config) any { return c.Gossip.Impl }, "memberlist"},
		{"flag over environment", "gossip_impl: crdt", []string{"GOSSIP_IMPL=memberlist"}, []string{"--gossip-impl=inmemory"}, func(c agent.Config) any { return c.Gossip.Impl }, "inmemory"},
		{"empty variable is unset", "raft_id: node7", []string{"RAFT_ID="}, nil, func(c agent.Config) any { return c.RaftID() }, "node7"},
		{"prefix of our own", "", []string{"FLUID_HTTP_BIND=127.0.0.1:1"}, nil, func(c agent.Config) any { return c.HTTPBind }, "127.0.0.1:1"},
		{"raft itself", "", []string{"FLUID_RAFT=client"}, nil, func(c agent.Config) any { return c.Raft.Role }, "client"},
		{"duration", "", []string{"RAFT_SNAPSHOT_INTERVAL=2m"}, nil, func(c agent.Config) any { return c.Raft.SnapshotInterval }, 2 * time.Minute},
		{"number", "raft_snapshot_threshold: 7", nil, nil, func(c agent.Config) any { return c.Raft.SnapshotThreshold }, uint64(7)},
		{"bool unset", "", nil, nil, func(c agent.Config) any { return c.Raft.Bootstrap == nil }, true},
		{"bool in environment", "", []string{"RAFT_BOOTSTRAP=true"}, nil, func(c agent.Config) any { return *c.Raft.Bootstrap }, true},
		{"bool flag", "", []string{"RAFT_BOOTSTRAP=true"}, []string{"--raft-bootstrap=false"}, func(c agent.Config) any { return *c.Raft.Bootstrap }, false},
		{"list in environment", "", []string{"GOSSIP_SEEDS=a:1, b:2"}, nil, func(c agent.Config) any { return strings.Join(c.Gossip.Seeds, "|") }, "a:1|b:2"},
		{"list in file", "gossip_seeds: [a:1, 'b:2']", nil, nil, func(c agent.Config) any { return strings.Join(c.Gossip.Seeds, "|") }, "a:1|b:2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, warnings, err := load(t, tc.yaml, tc.env, tc.flags)
			if err != nil || len(warnings) != 0 {
				t.Fatalf("warnings %q, error %v", warnings, err)
			}
			if got := tc.get(cfg); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestSecretFiles(t *testing.T) {
	token := write(t, "token", "from-file\n")
	ring := write(t, "keys", "00112233445566778899aabbccddeeff\nffeeddccbbaa99887766554433221100\n")
	for _, tc := range []struct {
		name       string
		yaml       string
		env, flags []string
		get        func(agent.Config) string
		want       string
	}{
		{"variable", "", []string{"FLUID_TOKEN_FILE=" + token}, nil, func(c agent.Config) string { return c.Token }, "from-file"},
		{"flag", "token: from-yaml", nil, []string{"--token-file=" + token}, func(c agent.Config) string { return c.Token }, "from-file"},
		{"value over lower file", "token_file: " + token, []string{"FLUID_TOKEN=from-env"}, nil, func(c agent.Config) string { return c.Token }, "from-env"},
		{"file over lower value", "token: from-yaml", []string{"FLUID_TOKEN_FILE=" + token}, nil, func(c agent.Config) string { return c.Token }, "from-file"},
		{"key ring", "", []string{"GOSSIP_KEY_HEX_FILE=" + ring}, nil, func(c agent.Config) string { return c.Gossip.KeyHex }, "00112233445566778899aabbccddeeff,ffeeddccbbaa99887766554433221100"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, _, err := load(t, tc.yaml, tc.env, tc.flags)
			if err != nil {
				t.Fatal(err)
			}
			if got := tc.get(cfg); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	empty := write(t, "empty", "\n")
	for _, tc := range []struct {
		name, yaml string
		env        []string
		want       string
	}{
		{"unknown key", "gossip_imp: crdt", nil, `unknown key "gossip_imp"; did you mean gossip_impl?`},
		{"nested key", "raft: {bind: x}", nil, `raft (FLUID_RAFT)`},
		{"no YAML", "a: [", nil, "agent.yaml"},
		{"bad duration", "", []string{"RAFT_SNAPSHOT_INTERVAL=soon"}, `raft_snapshot_interval (RAFT_SNAPSHOT_INTERVAL): "soon" is not a duration such as "30s"`},
		{"duration without a unit", "raft_snapshot_interval: 30", nil, `raft_snapshot_interval (RAFT_SNAPSHOT_INTERVAL): "30" is not a duration such as "30s"`},
		{"bad bool", "", []string{"RAFT_BOOTSTRAP=maybe"}, `"maybe" is not true or false`},
		{"missing file", "", []string{"FLUID_TOKEN_FILE=/nonexistent/token"}, "token_file: open /nonexistent/token"},
		{"empty secret", "", []string{"FLUID_TOKEN_FILE=" + empty}, "is empty"},
		{"missing config", "", []string{"FLUID_CONFIG=/nonexistent/agent.yaml"}, "/nonexistent/agent.yaml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := load(t, tc.yaml, tc.env, nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestUnknownVariables(t *testing.T) {
	_, got, err := load(t, "", []string{"GOSSIP_SEED=a:1", "FLUID_ADDR=http://x", "FLUID_DNS=127.0.0.1:53", "FLUID_DNS_ZONE=x", "RAFT_BOOTSTRAPP=true", "HOME=/"}, nil)
	want := []string{
		"unknown variable GOSSIP_SEED; did you mean GOSSIP_SEEDS?",
		"unknown variable RAFT_BOOTSTRAPP; did you mean RAFT_BOOTSTRAP?",
	}
	if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestValidate(t *testing.T) {
	yes := true
	for _, tc := range []struct {
		name string
		edit func(*agent.Config)
		want string // key of the only error; "" for none
	}{
		{"default", func(*agent.Config) {}, ""},
		{"gossip implementation", func(c *agent.Config) { c.Gossip.Impl = "serf" }, "gossip_impl"},
		{"capital id", func(c *agent.Config) { c.Raft.ID = "Node1" }, "raft_id"},
		{"no port", func(c *agent.Config) { c.HTTPBind = "127.0.0.1" }, "http_bind"},
		{"bad port", func(c *agent.Config) { c.Raft.Bind = "127.0.0.1:99999" }, "raft_bind"},
		{"seeds", func(c *agent.Config) { c.Gossip.Seeds = []string{"a", "10.0.0.1:7946", "fd00::1", "[fd00::1]:1"} }, ""},
		{"seed port", func(c *agent.Config) { c.Gossip.Seeds = []string{"a:7946", "b:x"} }, "gossip_seeds[1]"},
		{"role", func(c *agent.Config) { c.Raft.Role = "leader" }, "raft"},
		{"join URL", func(c *agent.Config) { c.Raft.JoinURL = "127.0.0.1:18080" }, "raft_join_url"},
		{"key", func(c *agent.Config) { c.Gossip.KeyHex = "secret" }, "gossip_key_hex[0]"},
		{"CIDR", func(c *agent.Config) { c.Gossip.Allow = []string{"10.0.0.0"} }, "gossip_allow[0]"},
		{"open HTTP", func(c *agent.Config) { c.HTTPBind = "10.0.0.1:18080" }, "http_bind"},
		{"open HTTP with a token alone", func(c *agent.Config) { c.HTTPBind, c.Token = "10.0.0.1:18080", "x" }, "http_bind"},
		{"open HTTP with keys", func(c *agent.Config) {
			c.HTTPBind, c.Token, c.TLSCertFile, c.TLSKeyFile = "10.0.0.1:18080", "x", "a", "b"
		}, ""},
		{"open HTTP accepted", func(c *agent.Config) { c.HTTPBind, c.Insecure = "10.0.0.1:18080", true }, ""},
		{"every address", func(c *agent.Config) { c.HTTPBind, c.Insecure = ":18080", true }, "http_advertise"},
		{"every address, advertised", func(c *agent.Config) {
			c.Raft.Bind, c.Raft.Advertise, c.Insecure = "0.0.0.0:11000", "10.0.0.1:11000", true
		}, ""},
		{"client that finds nobody", func(c *agent.Config) { c.Raft.Role = "client" }, "raft"},
		{"client with seeds of no mesh", func(c *agent.Config) { c.Raft.Role, c.Gossip.Seeds = "client", []string{"a:7946"} }, "raft"},
		{"client with seeds", func(c *agent.Config) {
			c.Raft.Role, c.Gossip.Seeds, c.Gossip.Impl = "client", []string{"a:7946"}, "crdt"
		}, ""},
		{"client with a URL", func(c *agent.Config) { c.Raft.Role, c.Raft.JoinURL = "client", "http://a:18080" }, ""},
		{"client that bootstraps", func(c *agent.Config) {
			c.Raft.Role, c.Raft.JoinURL, c.Raft.Bootstrap = "client", "http://a:18080", &yes
		}, "raft"},
		{"client with copies", func(c *agent.Config) {
			c.Raft.Role, c.Raft.JoinURL, c.Raft.CopiesDir = "client", "http://a:18080", "/copies"
		}, "raft_snapshot_copies_dir"},
		{"files of instances", func(c *agent.Config) { c.ServicesDir = "/etc/fluid/services" }, "services_dir"},
		{"open raft", func(c *agent.Config) { c.Raft.Bind = "10.0.0.1:11000" }, "raft_bind"},
		{"IPv6 loopback", func(c *agent.Config) { c.HTTPBind, c.Raft.Bootstrap = "[::1]:18080", &yes }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := agent.Default()
			tc.edit(&cfg)
			err := cfg.Validate()
			got := ""
			if ce, ok := errors.AsType[*agent.ConfigError](err); ok {
				got = ce.Key
			}
			if got != tc.want {
				t.Errorf("got %q (%v), want %q", got, err, tc.want)
			}
		})
	}
}

func TestShouldBootstrap(t *testing.T) {
	yes, no := true, false
	for _, tc := range []struct {
		name string
		edit func(*agent.Config)
		want bool
	}{
		{"quick start", func(*agent.Config) {}, true},
		{"asked for", func(c *agent.Config) { c.Raft.Bootstrap, c.Raft.Bind = &yes, "10.0.0.1:11000" }, true},
		{"asked not to", func(c *agent.Config) { c.Raft.Bootstrap = &no }, false},
		{"join", func(c *agent.Config) { c.Raft.JoinURL = "http://127.0.0.1:18080" }, false},
		{"join and bootstrap", func(c *agent.Config) { c.Raft.JoinURL, c.Raft.Bootstrap = "http://127.0.0.1:18080", &yes }, false},
		{"seeds", func(c *agent.Config) { c.Gossip.Seeds = []string{"127.0.0.1:7946"} }, false},
		{"seeds and bootstrap", func(c *agent.Config) { c.Gossip.Seeds, c.Raft.Bootstrap = []string{"127.0.0.1:7946"}, &yes }, true},
		{"another loopback port", func(c *agent.Config) { c.Raft.Bind = "127.0.0.1:11007" }, true},
		{"reachable bind", func(c *agent.Config) { c.Gossip.Bind = "10.0.0.1:7946" }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := agent.Default()
			tc.edit(&cfg)
			if got := cfg.ShouldBootstrap(); got != tc.want {
				t.Errorf("got %t, want %t", got, tc.want)
			}
		})
	}
}
