package agenttest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait. Nothing takes nearly as long on an idle machine.
const patience = 30 * time.Second

// eventually polls until ok returns true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// lines is the output of a process.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// process is a program that runs.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  *lines
	done chan struct{} // closed when it has ended
}

// start runs a program of bin. It is killed when the test ends; its output is
// shown if the test failed.
func start(t testing.TB, attr *syscall.SysProcAttr, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, out: &lines{}, done: make(chan struct{})}
	p.cmd = exec.Command(name, args...)
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = attr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if out := p.out.String(); strings.Contains(out, "WARNING: DATA RACE") || strings.Contains(out, "panic:") {
			t.Errorf("%s: data race or panic", filepath.Base(name))
		}
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(name), tail(p.out.String()))
		}
	})
	return p
}

func tail(s string) string {
	const keep = 8 << 10
	if len(s) > keep {
		return "..." + s[len(s)-keep:]
	}
	return s
}

// freeze stops the program with SIGSTOP and waits until all of it stands still:
// the signal alone leaves its threads running for a moment.
func (p *process) freeze() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, "the program stands still", func() bool {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		for _, task := range tasks {
			stat, err := os.ReadFile(task)
			if _, rest, _ := strings.Cut(string(stat), ") "); err != nil || !strings.HasPrefix(rest, "T") {
				return false
			}
		}
		return len(tasks) > 0
	})
}

// kill ends it as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// ended waits for it to end by itself and returns its exit code.
func (p *process) ended() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s runs on:\n%s", p.cmd.Path, tail(p.out.String()))
	}
	return p.cmd.ProcessState.ExitCode()
}

// taken are the ports that freePort has returned.
var taken sync.Map

// freePort returns a loopback port on which nothing listens, by TCP or UDP, and
// that it has not returned before. It is below those that the kernel gives to
// outgoing connections: one of them could take the port while the program that
// it is for is restarted.
func freePort(t testing.TB) int {
	t.Helper()
	const first, ports = 20_000, 12_000 // the kernel's begin at 32,768
	for range 200 {
		port := first + rand.N(ports)
		if _, used := taken.LoadOrStore(port, true); used {
			continue
		}
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			continue
		}
		u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		_ = l.Close()
		if err == nil {
			_ = u.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// newDir returns a new directory that every user can enter, with a path short
// enough for sockets.
func newDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fluid")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // another user runs a program in some tests
		t.Fatal(err)
	}
	return dir
}

// host is one machine: an agent and a CoreDNS that share a socket.
type host struct {
	t      testing.TB
	id     string // RAFT_ID
	dir    string
	socket string
	http   string // host:port of the agent
	raft   string
	gossip string
	dns    string // host:port of CoreDNS
	metric string
	ready  string

	agent, coredns *process
}

func newHost(t testing.TB) *host {
	t.Helper()
	dir := newDir(t)
	port := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }
	return &host{
		t: t, id: "a", dir: dir, socket: filepath.Join(dir, "run", "agent.sock"),
		http: port(), raft: port(), gossip: port(), dns: port(), metric: port(), ready: port(),
	}
}

// env is the environment of the host's programs: nothing of the caller's that
// configures Fluid.
func (h *host) env(extra ...string) []string {
	env := []string{
		"FLUID_DATA_DIR=" + filepath.Join(h.dir, "data"), "FLUID_SOCKET=" + h.socket,
		"FLUID_HTTP_BIND=" + h.http, "RAFT_BIND=" + h.raft, "GOSSIP_BIND=" + h.gossip, "RAFT_ID=" + h.id,
		"FLUID_ADDR=http://" + h.http,
	}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "FLUID_") && !strings.HasPrefix(name, "RAFT_") && !strings.HasPrefix(name, "GOSSIP_") {
			env = append(env, kv)
		}
	}
	return append(env, extra...)
}

// launchAgent starts an agent without waiting for it.
func (h *host) launchAgent(extra ...string) *process {
	h.t.Helper()
	return start(h.t, nil, h.env(extra...), filepath.Join(bin, "fluid-agent"))
}

// startAgent starts the agent and waits until it takes writes.
func (h *host) startAgent(extra ...string) {
	h.t.Helper()
	h.agent = h.launchAgent(extra...)
	h.awaitAgent()
}

func (h *host) awaitAgent() {
	h.t.Helper()
	h.awaitURL(h.agent, "http://"+h.http+"/readyz")
	eventually(h.t, "the agent leads", func() bool {
		code, _ := h.call(http.MethodPost, "/v1/apps", `{"appId":"ready","ip":"10.255.0.1"}`)
		return code == http.StatusCreated || code == http.StatusOK
	})
}

// writeCorefile writes the Corefile with further options of fluid and returns
// its path.
func (h *host) writeCorefile(options ...string) string {
	h.t.Helper()
	corefile := filepath.Join(h.dir, "Corefile")
	_, port, _ := net.SplitHostPort(h.dns)
	text := fmt.Sprintf(`fluid.internal:%s {
	bind 127.0.0.1
	bufsize 1232
	errors
	ready %s
	prometheus %s
	fluid {
		agent %s
		%s
	}
}
`, port, h.ready, h.metric, h.socket, strings.Join(options, "\n\t\t"))
	if err := os.WriteFile(corefile, []byte(text), 0o644); err != nil { // another user reads it in some tests
		h.t.Fatal(err)
	}
	return corefile
}

// startDNS starts CoreDNS with further options of fluid, and waits until it
// answers queries, whatever the answer.
func (h *host) startDNS(options ...string) {
	h.t.Helper()
	h.coredns = start(h.t, nil, h.env(), filepath.Join(bin, "coredns"), "-conf", h.writeCorefile(options...))
	eventually(h.t, "CoreDNS answers", func() bool {
		h.alive(h.coredns)
		_, err := ask(h.dns, "fluid.internal.", typeSOA)
		return err == nil
	})
}

// alive fails the test if a process has ended by itself.
func (h *host) alive(p *process) {
	h.t.Helper()
	select {
	case <-p.done:
		h.t.Fatalf("%s ended: %v\n%s", p.cmd.Path, p.cmd.ProcessState, tail(p.out.String()))
	default:
	}
}

// awaitURL waits until a URL of a process answers 200.
func (h *host) awaitURL(p *process, url string) {
	h.t.Helper()
	eventually(h.t, url, func() bool {
		h.alive(p)
		return status(url) == http.StatusOK
	})
}

var httpClient = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4}}

// status returns the status code of a URL, 0 if nobody answers.
func status(url string) int {
	resp, err := httpClient.Get(url)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// call makes a request to the agent and returns the status code and the body,
// 0 if nobody answers. Headers are NAME: VALUE.
func (h *host) call(method, path, body string, headers ...string) (int, string) {
	h.t.Helper()
	req, err := http.NewRequest(method, "http://"+h.http+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for _, kv := range headers {
		name, value, _ := strings.Cut(kv, ": ")
		req.Header.Set(name, value)
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// register commits an instance, which must be new or changed.
func (h *host) register(app, ip string) {
	h.t.Helper()
	code, body := h.call(http.MethodPost, "/v1/apps", fmt.Sprintf(`{"appId":%q,"ip":%q}`, app, ip))
	if code != http.StatusCreated && code != http.StatusOK {
		h.t.Fatalf("register %s %s: got %d %s", app, ip, code, body)
	}
}

// metricOf returns the value of a metric of CoreDNS, labels included in name,
// and whether it is there.
func (h *host) metricOf(name string) (float64, bool) {
	h.t.Helper()
	resp, err := httpClient.Get("http://" + h.metric + "/metrics")
	if err != nil {
		return 0, false
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			var v float64
			_, err := fmt.Sscan(rest, &v)
			return v, err == nil
		}
	}
	return 0, false
}

// wantMetric fails unless a metric of CoreDNS has the value.
func (h *host) wantMetric(name string, want float64) {
	h.t.Helper()
	if got, ok := h.metricOf(name); !ok || got != want {
		h.t.Errorf("metric %s: got %v (there: %v), want %v", name, got, ok, want)
	}
}
