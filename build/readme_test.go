package build_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// block is one fenced block of a Markdown file.
type block struct {
	test string // from the comment "<!-- test: NAME -->" above it
	text string
}

var fence = regexp.MustCompile("(?ms)(?:^<!-- test: ([a-z]+) -->\n)?^```[a-z]*\n(.*?)^```$")

func readmeBlocks(t *testing.T) []block {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []block
	for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, block{test: m[1], text: m[2]})
	}
	return blocks
}

func snippets(t *testing.T, test string) string {
	t.Helper()
	var text strings.Builder
	for _, b := range readmeBlocks(t) {
		if b.test == test {
			text.WriteString(b.text)
		}
	}
	if text.Len() == 0 {
		t.Fatalf("README.md has no block marked %q", test)
	}
	return text.String()
}

// Every block is run by one of the tests of this file, or is a figure or a
// command that the other tests run in another way.
func TestReadmeHasNoUntestedBlock(t *testing.T) {
	known := map[string]bool{"tour": true, "gossip": true, "nodes": true, "resolved": true, "dnsmasq": true, "unbound": true, "bind": true, "coredns": true, "plugincfg": true}
	plain := []string{"──DNS──▶", "make run\nmake test\n", "dig @127.0.0.1 -p 1053 checkout.fluid.internal A +short\n", "apt-get install"}
	for _, b := range readmeBlocks(t) {
		ok := known[b.test]
		for _, p := range plain {
			ok = ok || b.test == "" && strings.Contains(b.text, p)
		}
		if !ok {
			t.Errorf("no test runs this block of README.md (mark %q):\n%s", b.test, b.text)
		}
	}
}

// startDemo runs an agent and CoreDNS as the README says, with checkout
// registered, and returns their environment.
func startDemo(t *testing.T) []string {
	t.Helper()
	env := userEnv(t)
	start(t, env, filepath.Join(binDir(t), "fluid-agent"))
	start(t, env, filepath.Join(binDir(t), "coredns"), "-conf", "Corefile.example")
	eventually(t, "register", func() error {
		return command(t, env, filepath.Join(binDir(t), "fluidctl"), "-app", "checkout", "-ip", "10.0.0.9").Run()
	})
	eventually(t, "answer", want("127.0.0.1:1053", "checkout.fluid.internal", "10.0.0.9"))
	return env
}

func TestMakeRun(t *testing.T) {
	var out lockedBuilder
	cmd := exec.Command("make", "--no-print-directory", "run")
	cmd.Dir = ".."
	cmd.Env = userEnv(t)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^\s*(dig @127\.0\.0\.1 -p 1053 \S+ A \+short)$`)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }()
	deadline := time.After(5 * time.Minute) // a first build is slow
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(out.String(), "Ctrl-C stops both") {
		select {
		case err := <-ended:
			t.Fatalf("make run ended: %v\n%s", err, out.String())
		case <-deadline:
			t.Fatalf("make run did not get ready\n%s", out.String())
		case <-tick.C:
		}
	}
	if !strings.Contains(out.String(), "10.0.0.9") {
		t.Errorf("the answer is not printed:\n%s", out.String())
	}
	dig := line.FindStringSubmatch(out.String())
	if dig == nil {
		t.Fatalf("no dig line:\n%s", out.String())
	}
	answer, err := exec.CommandContext(t.Context(), "sh", "-c", dig[1]).CombinedOutput()
	if got := strings.TrimSpace(string(answer)); err != nil || got != "10.0.0.9" {
		t.Errorf("%s: got %q, %v; want 10.0.0.9", dig[1], got, err)
	}

	// Ctrl-C goes to the whole foreground group.
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("make run did not stop within 30 s of Ctrl-C")
	}
	if strings.Contains(out.String(), "panic") || !strings.Contains(out.String(), "stopping") {
		t.Errorf("not a clean stop:\n%s", out.String())
	}
	if _, err := ask("127.0.0.1:1053", "checkout.fluid.internal"); err == nil {
		t.Error("CoreDNS still answers")
	}
}

func TestReadmeTour(t *testing.T) {
	env := startDemo(t)
	var script strings.Builder
	script.WriteString("set -eu\n")
	for line := range strings.Lines(snippets(t, "tour")) {
		if !strings.HasSuffix(strings.TrimSpace(line), "&") { // started already
			script.WriteString(line)
		}
	}
	cmd := command(t, env, "bash", "-c", script.String())
	if err := cmd.Run(); err != nil {
		t.Fatalf("the tour failed: %v", err)
	}
	out := cmd.Stdout.(*lockedBuilder).String()
	for _, want := range []string{"web", "checkout", "10.0.0.10", "1 8080 10-0-0-10-8080.web.fluid.internal."} {
		if !strings.Contains(out, want) {
			t.Errorf("the tour does not show %q:\n%s", want, out)
		}
	}
}

// Gossip, as a reader types it: what asks is typed again until it shows
// something.
func TestReadmeGossip(t *testing.T) {
	script := "set -u\nuntil_shown() { for _ in $(seq 100); do out=$(eval \"$1\") && [[ $out =~ $2 ]] && break; sleep 0.2; done; echo \"shown: $out\"; }\n"
	for line := range strings.Lines(snippets(t, "gossip")) {
		switch line = strings.TrimSuffix(line, "\n"); {
		case strings.HasPrefix(line, "dig"):
			script += "until_shown '" + line + "' '^10'\n"
		case strings.Contains(line, "grep"):
			script += "until_shown '" + line + "' 'alive.. 2'\n"
		case strings.HasPrefix(line, "coredns"):
			script += line + "\nuntil_shown 'fluidctl status >/dev/null && echo up' up\n"
		default:
			script += line + "\n"
		}
	}
	cmd := command(t, userEnv(t), "bash", "-c", script+"pkill -P $$; wait\n")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	t.Cleanup(kill)
	defer time.AfterFunc(2*time.Minute, kill).Stop()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	out := cmd.Stdout.(*lockedBuilder).String()
	for _, want := range []string{"shown: 10.0.0.20\n", `mesh_members{state="alive"} 2`} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not shown:\n%s", want, out)
		}
	}
}

// The three nodes, as a reader types them: a line that asks or writes is typed
// again until it succeeds.
func TestReadmeNodes(t *testing.T) {
	script := "set -u\ntry() { for _ in $(seq 100); do eval \"$1\" && return; sleep 0.2; done; echo \"gave up: $1\"; exit 1; }\n"
	for line := range strings.Lines(snippets(t, "nodes")) {
		line = strings.TrimSuffix(line, "\n")
		switch word, _, _ := strings.Cut(line, " "); {
		case word == "dig":
			script += "echo answer: $(" + line + " | sort)\n"
		case line == "fluidctl raft list":
			script += "try 'test $(" + line + " | grep -cw voter) = 3'\n" + line + "\n"
		case strings.Contains(line, "fluidctl"):
			script += "try '" + line + "'\n"
		default:
			script += line + "\n"
		}
		if line == "leader=$!" {
			script += "try 'fluidctl status >/dev/null'\n"
		}
	}
	script += `pkill -P $$; wait` + "\n"
	env := userEnv(t)
	for i, kv := range env { // the reader sets these for each node
		if strings.HasPrefix(kv, "FLUID_") {
			env[i] = "UNUSED=" + kv
		}
	}
	cmd := command(t, env, "bash", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	t.Cleanup(kill)
	defer time.AfterFunc(2*time.Minute, kill).Stop()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	out := cmd.Stdout.(*lockedBuilder).String()
	for _, want := range []string{
		"node3", "answer: 10.0.0.10 10.0.0.9\n", // both, then one drained
		"answer: 10.0.0.10\n", "10.0.0.11",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the tour does not show %q:\n%s", want, out)
		}
	}
	if got := strings.Count(out, "answer: 10.0.0.10"); got != 3 {
		t.Errorf("%d answers, want 3:\n%s", got, out)
	}
}

// Each resolver of the README, with its snippet as written, answers for Fluid.
func TestReadmeResolvers(t *testing.T) {
	env := startDemo(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("dnsmasq", func(t *testing.T) {
		needs(t, "dnsmasq", "dnsmasq-base")
		port := freePort(t)
		conf := file("dnsmasq.conf", snippets(t, "dnsmasq")+"port="+port+"\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nuser=root\npid-file=\n")
		start(t, env, "dnsmasq", "--keep-in-foreground", "--conf-file="+conf)
		eventually(t, "dnsmasq", want("127.0.0.1:"+port, "checkout.fluid.internal", "10.0.0.9"))
	})
	t.Run("unbound", func(t *testing.T) {
		needs(t, "unbound", "unbound")
		port := freePort(t)
		conf := file("unbound.conf", snippets(t, "unbound")+`server:
			interface: 127.0.0.1
			port: `+port+`
			do-daemonize: no
			username: ""
			chroot: ""
			directory: "`+dir+`"
			pidfile: ""
			use-syslog: no
		`)
		start(t, env, "unbound", "-d", "-p", "-c", conf)
		eventually(t, "unbound", want("127.0.0.1:"+port, "checkout.fluid.internal", "10.0.0.9"))
	})
	t.Run("bind", func(t *testing.T) {
		needs(t, "named", "bind9")
		port := freePort(t)
		conf := file("named.conf", `options { directory "`+dir+`"; listen-on port `+port+` { 127.0.0.1; }; listen-on-v6 { none; };
			dnssec-validation auto; validate-except { "fluid.internal"; }; recursion yes; pid-file none; session-keyfile none; };
			controls { };
			`+snippets(t, "bind"))
		start(t, env, "named", "-f", "-c", conf)
		eventually(t, "named", want("127.0.0.1:"+port, "checkout.fluid.internal", "10.0.0.9"))
	})
	t.Run("coredns", func(t *testing.T) {
		port := freePort(t)
		conf := file("Corefile", snippets(t, "coredns"))
		start(t, env, filepath.Join(binDir(t), "coredns"), "-conf", conf, "-dns.port", port)
		eventually(t, "coredns", want("127.0.0.1:"+port, "checkout.fluid.internal", "10.0.0.9"))
	})
}

// needs skips a test whose peer is not installed; .ci/run installs them all.
func needs(t *testing.T, program, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s (Debian package %s)", program, debianPackage)
	}
}

// systemd-resolved takes its configuration from fixed paths and answers on a
// fixed address, so it runs in namespaces of its own, with a CoreDNS beside it.
func TestReadmeResolved(t *testing.T) {
	resolved := os.Getenv("FLUID_TEST_RESOLVED")
	if resolved == "" {
		resolved = "/lib/systemd/systemd-resolved"
	}
	needs(t, resolved, "systemd-resolved, or FLUID_TEST_RESOLVED set to the program")
	if os.Getuid() != 0 {
		t.Skip("needs root for namespaces")
	}
	dir := t.TempDir()
	conf, hosts := filepath.Join(dir, "fluid.conf"), filepath.Join(dir, "Corefile")
	for path, text := range map[string]string{
		conf:  snippets(t, "resolved"),
		hosts: "fluid.internal:1053 {\n bind 127.0.0.1\n hosts {\n 10.0.0.9 checkout.fluid.internal\n }\n}\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := command(t, userEnv(t), "unshare", "--mount", "--net", "--fork", "build/testdata/resolved.sh",
		resolved, conf, "checkout.fluid.internal", filepath.Join(binDir(t), "coredns"), "-conf", hosts)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if out := cmd.Stdout.(*lockedBuilder).String(); !strings.Contains(out, "answer: 10.0.0.9") {
		t.Errorf("got %s", out)
	}
}
