package build_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestExampleAgentConfig(t *testing.T) {
	env := userEnv(t)
	text, err := os.ReadFile("examples/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// As written, and with every setting that is shown as a comment.
	dir := t.TempDir()
	for _, name := range []string{"token", "http.pem", "http.key", "mesh.keys"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := strings.NewReplacer("\n# node:", "\nnode:", "\n# zone:", "\nzone:", "\n# data_dir:", "\ndata_dir:",
		"\n# socket:", "\nsocket:", "\n# http_bind:", "\nhttp_bind:", "\n# token_file:", "\ntoken_file:",
		"\n# tls_", "\ntls_", "\n# raft_", "\nraft_", "\n# gossip_", "\ngossip_", "/etc/fluid/", dir+"/").Replace(string(text))
	for name, yaml := range map[string]string{"as written": string(text), "uncommented": all} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "agent.yaml")
			if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := command(t, env, filepath.Join(binDir(t), "fluid-agent"), "validate", "--config", path)
			if err := cmd.Run(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The host's Corefile serves, with its ports and paths moved to free ones.
func TestExampleCorefileHost(t *testing.T) {
	env := startDemo(t)
	text, err := os.ReadFile("examples/Corefile.host")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "Corefile")
	upstream := filepath.Join(dir, "resolv.conf")
	moved := strings.NewReplacer("127.0.0.1:9153", "127.0.0.1:"+freePort(t), "127.0.0.1:8181", "127.0.0.1:"+freePort(t),
		"/var/lib/fluid/", dir+"/", "/etc/resolv.upstream.conf", upstream, "\n    loop\n", "\n").Replace(string(text))
	for path, text := range map[string]string{conf: moved, upstream: "nameserver 127.0.0.1\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	port := freePort(t)
	start(t, env, filepath.Join(binDir(t), "coredns"), "-conf", conf, "-dns.port", port)
	eventually(t, "answer", want("127.0.0.1:"+port, "checkout.fluid.internal", "10.0.0.9"))
}

// The units name programs that the build makes and directives that systemd
// knows.
func TestSystemdUnits(t *testing.T) {
	needs(t, "systemd-analyze", "systemd")
	units, err := filepath.Glob("systemd/*.service")
	if err != nil || len(units) != 2 {
		t.Fatalf("units: %v, %v", units, err)
	}
	dir := t.TempDir()
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		// systemd-analyze wants the programs to exist.
		here := strings.NewReplacer("/usr/local/bin/", binDir(t)+"/", "User=fluid", "User=root", "Group=fluid", "Group=root").Replace(string(text))
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(unit)), []byte(here), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no",
		filepath.Join(dir, "fluid-agent.service"), filepath.Join(dir, "fluid-coredns.service")).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) { // other lines are about this machine's own units
			t.Errorf("%s", line)
		}
	}
	if err != nil && len(out) == 0 {
		t.Error(err)
	}
}
