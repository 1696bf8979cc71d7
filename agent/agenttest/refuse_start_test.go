package agenttest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// Exit codes of fluid-agent.
const (
	exitFailed = 1
	exitUsage  = 2
)

// damage flips a byte in the middle of a file.
func damage(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		t.Fatalf("%s: %d bytes, %v", path, len(b), err)
	}
	b[len(b)/2] ^= 0x40
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantRefusal waits for an agent to end with a code and words in its output.
func wantRefusal(t *testing.T, p *process, code int, words ...string) {
	t.Helper()
	if got := p.ended(); got != code {
		t.Errorf("exit code: got %d, want %d\n%s", got, code, tail(p.out.String()))
	}
	for _, w := range words {
		if !strings.Contains(p.out.String(), w) {
			t.Errorf("got %q, want it to say %q", tail(p.out.String()), w)
		}
	}
}

// other returns another host, whose files are not in the way, that shares what
// share copies from h.
func (h *host) other(share func(to *host)) *host {
	h.t.Helper()
	o := newHost(h.t)
	share(o)
	return o
}

func TestSecondAgentIsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startAgent()
	h.register("checkout", "10.0.0.9")
	before := h.everything()
	tests := []struct {
		name  string
		share func(to *host)
		code  int
		words []string
	}{
		{"on the data directory", func(to *host) { to.dir = h.dir }, exitFailed, []string{filepath.Join(h.dir, "data"), "FLUID_DATA_DIR", "in use"}},
		{"on the socket", func(to *host) { to.socket = h.socket }, exitFailed, []string{h.socket, "FLUID_SOCKET", fmt.Sprint(h.agent.cmd.Process.Pid)}},
		{"on the HTTP address", func(to *host) { to.http = h.http }, exitUsage, []string{h.http, "FLUID_HTTP_BIND"}},
		{"on the Raft address", func(to *host) { to.raft = h.raft }, exitUsage, []string{h.raft, "RAFT_BIND"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantRefusal(t, h.other(tt.share).launchAgent(), tt.code, tt.words...)
			h.alive(h.agent)
			if got := h.everything(); got != before {
				t.Errorf("the first agent changed: %s", got)
			}
		})
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		env   string
		words []string
	}{
		{"address", "FLUID_HTTP_BIND=nowhere", []string{"FLUID_HTTP_BIND", "nowhere", "HOST:PORT"}},
		{"open to others without a key", "FLUID_HTTP_BIND=0.0.0.0:0", []string{"FLUID_HTTP_BIND", "--insecure"}},
		{"name", "RAFT_ID=Not_A_Label", []string{"RAFT_ID", "lower-case"}},
		{"gossip", "GOSSIP_IMPL=rumour", []string{"GOSSIP_IMPL", "inmemory"}},
		{"file that is missing", "FLUID_CONFIG=/does/not/exist.yaml", []string{"/does/not/exist.yaml"}},
		{"duration", "RAFT_SNAPSHOT_INTERVAL=30", []string{"RAFT_SNAPSHOT_INTERVAL", "30s"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			wantRefusal(t, h.launchAgent(tt.env), exitUsage, tt.words...)
			if _, err := os.Stat(filepath.Join(h.dir, "data")); !errors.Is(err, os.ErrNotExist) {
				t.Error("the data directory was made")
			}
		})
	}
}

// TestDamagedLogIsRefused flips a byte of an entry that was acknowledged: the
// agent must not start as if the entry had never been.
func TestDamagedLogIsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startAgent()
	for i := range 20 {
		h.register("checkout", fmt.Sprintf("10.0.0.%d", i))
	}
	h.agent.kill()
	segments, err := filepath.Glob(filepath.Join(h.dir, "data", "wal", "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("log segments: %v, %v", segments, err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(b), "10.0.0.7") // in the id of an entry
	if at < 0 {
		t.Fatal("the entry is not in the log")
	}
	b[at] ^= 1
	if err := os.WriteFile(segments[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, h.launchAgent(), exitFailed, "damaged", filepath.Join(h.dir, "data"), "fluid-agent reset")
}

// TestDamagedSnapshotLosesNothing flips a byte of the newest Raft snapshot.
// The log still holds everything, so the agent starts with all of it.
func TestDamagedSnapshotLosesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	often := []string{"RAFT_SNAPSHOT_INTERVAL=20ms", "RAFT_SNAPSHOT_THRESHOLD=5"}
	h.startAgent(often...)
	for i := range 30 {
		h.register("checkout", fmt.Sprintf("10.0.0.%d", i))
	}
	var files []string
	eventually(t, "a snapshot", func() bool {
		files, _ = filepath.Glob(filepath.Join(h.dir, "data", "snapshots", "*.snap"))
		return len(files) > 0
	})
	before := h.everything()
	h.agent.kill()
	files, _ = filepath.Glob(filepath.Join(h.dir, "data", "snapshots", "*.snap"))
	for _, f := range files {
		damage(t, f)
	}
	h.agent = h.launchAgent(often...)
	h.awaitURL(h.agent, "http://"+h.http+"/readyz")
	if got := h.everything(); got != before {
		t.Errorf("after a damaged snapshot: got %s, want %s", got, before)
	}
	if out := h.agent.out.String(); !strings.Contains(out, filepath.Base(files[0])) {
		t.Errorf("the log does not name %s", files[0])
	}
}

// unprivileged makes a user other than the owner of the test's files: nobody,
// where the test runs as root.
func unprivileged() *syscall.SysProcAttr {
	if os.Geteuid() != 0 {
		return nil // the modes that the tests set hold for the owner too
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

func TestReadOnlyDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	for _, exists := range []bool{false, true} {
		t.Run(fmt.Sprintf("exists=%v", exists), func(t *testing.T) {
			h := newHost(t)
			run := filepath.Join(h.dir, "run")
			if err := errors.Join(os.Mkdir(run, 0o777), os.Chmod(run, 0o777)); err != nil { // for the other user
				t.Fatal(err)
			}
			locked := h.dir
			if exists {
				locked = filepath.Join(h.dir, "data")
				if err := os.Mkdir(locked, 0o755); err != nil { // readable by the other user
					t.Fatal(err)
				}
			}
			if err := os.Chmod(locked, 0o555); err != nil { // readable by the other user
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(locked, 0o755) }) // so that it can be removed
			p := start(t, unprivileged(), h.env(), filepath.Join(bin, "fluid-agent"))
			wantRefusal(t, p, exitFailed, filepath.Join(h.dir, "data"), "permission denied")
		})
	}
}

// TestSocketOfAnotherUser: neither an agent nor a CoreDNS of another user gets
// at a socket, and both say whose it is.
func TestSocketOfAnotherUser(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir := filepath.Dir(h.socket)
	if err := os.Mkdir(dir, 0o755); err != nil { // for the other user
		t.Fatal(err)
	}
	l, err := net.Listen("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	mode := os.FileMode(0o660)
	if os.Geteuid() != 0 {
		mode = 0
	}
	if err := os.Chmod(h.socket, mode); err != nil {
		t.Fatal(err)
	}
	lock := h.socket + ".lock"
	if err := errors.Join(os.WriteFile(lock, nil, 0o666), os.Chmod(lock, 0o666)); err != nil { // so that the socket itself is the obstacle
		t.Fatal(err)
	}
	agent := start(t, unprivileged(), h.env("FLUID_DATA_DIR="+filepath.Join(os.TempDir(), "fluid-never-made")), filepath.Join(bin, "fluid-agent"))
	wantRefusal(t, agent, exitFailed, h.socket, fmt.Sprintf("uid %d", os.Geteuid()), "FLUID_SOCKET")

	coredns := start(t, unprivileged(), h.env(), filepath.Join(bin, "coredns"), "-conf", h.writeCorefile("startup_timeout 100ms"))
	eventually(t, "CoreDNS says why", func() bool {
		h.alive(coredns)
		out := coredns.out.String()
		return strings.Contains(out, h.socket) && strings.Contains(out, fmt.Sprintf("uid %d", os.Geteuid()))
	})
}

// TestCoreDNSOfAnotherUser: whom the mode of the socket's group lets in gets
// the feed, and whom only the mode lets in is told that this is not enough.
func TestCoreDNSOfAnotherUser(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startAgent()
	h.register("checkout", "10.0.0.9")
	corefile := h.writeCorefile("startup_timeout 100ms")

	member := unprivileged()
	if member != nil {
		member.Credential.Groups = []uint32{uint32(os.Getegid())} // a group id
	}
	coredns := start(t, member, h.env(), filepath.Join(bin, "coredns"), "-conf", corefile)
	eventually(t, "a member of the group is answered", func() bool {
		h.alive(coredns)
		return resolves(h.dns, "checkout"+zone, "10.0.0.9")
	})
	coredns.kill()

	if os.Geteuid() != 0 {
		return // there is no other user to be
	}
	dir := filepath.Dir(h.socket)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(h.socket, 0o666)); err != nil { // the mistake that is tested
		t.Fatal(err)
	}
	coredns = start(t, unprivileged(), h.env(), filepath.Join(bin, "coredns"), "-conf", corefile)
	eventually(t, "CoreDNS says why", func() bool {
		h.alive(coredns)
		return strings.Contains(coredns.out.String(), "uid 65534 gid 65534") && strings.Contains(coredns.out.String(), "may not use the feed socket")
	})
	eventually(t, "a stranger has nothing to answer with", func() bool {
		r, err := ask(h.dns, "checkout"+zone, typeA)
		return err == nil && r.Rcode == dns.RcodeServerFailure
	})
}
