package agenttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallDiskEnv tells the test binary to run a program, which its arguments
// are, with a small disk: it names the directory to mount it on.
const smallDiskEnv = "FLUIDTEST_SMALL_DISK"

// runOnSmallDisk mounts the disk, in the mount namespace that the parent made,
// and becomes the program.
func runOnSmallDisk(dir string) {
	err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	if err == nil {
		err = syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+os.Getenv(smallDiskEnv+"_SIZE"))
	}
	if err == nil {
		err = syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1) //nolint:forbidigo // this process never was a test
}

// namespaces returns what gives a process mounts of its own.
func namespaces() *syscall.SysProcAttr {
	if os.Geteuid() == 0 {
		return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	}
	id := func(n int) []syscall.SysProcIDMap { return []syscall.SysProcIDMap{{HostID: n, Size: 1}} }
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: id(os.Getuid()), GidMappings: id(os.Getgid()),
	}
}

// launchOnSmallDisk starts a program for which dir is a disk of its own.
func (h *host) launchOnSmallDisk(dir, size, program string, args ...string) *process {
	h.t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	return start(h.t, namespaces(), h.env(smallDiskEnv+"="+dir, smallDiskEnv+"_SIZE="+size),
		self, append([]string{filepath.Join(bin, program)}, args...)...)
}

// on returns the path under which the test sees a file of a process with its
// own mounts.
func (p *process) on(path string) string {
	return filepath.Join("/proc", fmt.Sprint(p.cmd.Process.Pid), "root", path)
}

// TestFullDisk fills the disk of a running agent: writes are refused with 507
// and are not done, reads and DNS go on, and when there is room again so do
// writes.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	data := filepath.Join(h.dir, "data")
	h.agent = h.launchOnSmallDisk(data, "96m", "fluid-agent") // of which the agent wants 32 MiB to stay free
	h.awaitAgent()
	h.startDNS()
	h.register("checkout", "10.0.0.9")
	eventually(t, "the registration is answered", func() bool { return resolves(h.dns, "checkout"+zone, "10.0.0.9") })

	ballast := h.agent.on(filepath.Join(data, "ballast"))
	fill(t, ballast)
	before := h.everything()
	code, body := h.call(http.MethodPost, "/v1/apps", `{"appId":"more","ip":"10.0.0.10"}`)
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil || code != http.StatusInsufficientStorage {
		t.Fatalf("write on a full disk: got %d %s, want 507", code, body)
	}
	if !p.says(data) && !p.says("free") {
		t.Errorf("write on a full disk: got %s, want it to say what to free", body)
	}
	if got := h.everything(); got != before {
		t.Errorf("the refused write was done: %s", got)
	}
	if !resolves(h.dns, "checkout"+zone, "10.0.0.9") {
		t.Error("DNS does not go on")
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "writes go on when there is room again", func() bool {
		code, _ := h.call(http.MethodPost, "/v1/apps", `{"appId":"more","ip":"10.0.0.10"}`)
		return code == http.StatusCreated
	})
}

// TestDiskFullAtStart: an agent that finds no room for its log says so.
func TestDiskFullAtStart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	wantRefusal(t, h.launchOnSmallDisk(filepath.Join(h.dir, "data"), "1m", "fluid-agent"), exitFailed, filepath.Join(h.dir, "data"), "no space left")
}

// TestFullDiskUnderCoreDNS fills the disk with the snapshot of the plugin: DNS
// goes on, but what a restart would lose is not applied everywhere.
func TestFullDiskUnderCoreDNS(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	disk := filepath.Join(h.dir, "disk")
	h.startAgent()
	corefile := h.writeCorefile("snapshot " + filepath.Join(disk, "last-good"))
	h.coredns = h.launchOnSmallDisk(disk, "256k", "coredns", "-conf", corefile)
	eventually(t, "CoreDNS answers", func() bool {
		h.alive(h.coredns)
		return resolves(h.dns, "ready"+zone, "10.255.0.1")
	})
	write := func(n int, timeout string) spread {
		return h.everywhere(http.MethodPost, "/v1/apps?wait=everywhere&timeout="+timeout,
			fmt.Sprintf(`{"appId":"app-%d","ip":"10.0.0.9","meta":{"k":%q}}`, n, strings.Repeat("x", 250)))
	}
	if s := write(0, "5s"); !s.Everywhere {
		t.Fatalf("with room: got %+v, want it everywhere", s)
	}
	ballast := h.coredns.on(filepath.Join(disk, "ballast"))
	fill(t, ballast)
	n, s := 1, spread{Everywhere: true}
	for ; s.Everywhere && n < 100; n++ { // the last page of the file has some room
		s = write(n, "300ms")
	}
	if s.Everywhere || len(s.Lagging) != 1 {
		t.Errorf("without room: got %+v, want one that lags", s)
	}
	if !resolves(h.dns, fmt.Sprintf("app-%d", n-1)+zone, "10.0.0.9") {
		t.Error("DNS does not go on")
	}
	if v, _ := h.metricOf("coredns_fluid_snapshot_errors_total"); v == 0 {
		t.Error("no error is counted")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is everywhere when there is room again", func() bool { return write(n, "1s").Everywhere })
	h.agent.kill()
	h.coredns.kill()
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block := []byte(strings.Repeat("x", 64<<10))
	for {
		if _, err := f.Write(block); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			return
		}
	}
}
