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

// smallDiskEnv tells the test binary to be an agent on a small disk: it names
// the directory to mount it on.
const smallDiskEnv = "FLUIDTEST_SMALL_DISK"

// runOnSmallDisk mounts the disk, in the mount namespace that the parent made,
// and becomes the agent.
func runOnSmallDisk(dir string) {
	err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	if err == nil {
		err = syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+os.Getenv(smallDiskEnv+"_SIZE"))
	}
	if err == nil {
		agent := os.Getenv(smallDiskEnv + "_AGENT")
		err = syscall.Exec(agent, []string{agent}, os.Environ()) // the agent under test
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

// launchOnSmallDisk starts an agent whose data directory is a disk of its own.
func (h *host) launchOnSmallDisk(size string) *process {
	h.t.Helper()
	data := filepath.Join(h.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		h.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	return start(h.t, namespaces(), h.env(smallDiskEnv+"="+data, smallDiskEnv+"_SIZE="+size,
		smallDiskEnv+"_AGENT="+filepath.Join(bin, "fluid-agent")), self)
}

// TestFullDisk fills the disk of a running agent: writes are refused with 507
// and are not done, reads and DNS go on, and when there is room again so do
// writes.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	data := filepath.Join(h.dir, "data")
	h.agent = h.launchOnSmallDisk("96m") // of which the agent wants 32 MiB to stay free
	h.awaitAgent()
	h.startDNS()
	h.register("checkout", "10.0.0.9")
	eventually(t, "the registration is answered", func() bool { return resolves(h.dns, "checkout"+zone, "10.0.0.9") })

	ballast := filepath.Join("/proc", fmt.Sprint(h.agent.cmd.Process.Pid), "root", data, "ballast")
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
	wantRefusal(t, h.launchOnSmallDisk("1m"), exitFailed, filepath.Join(h.dir, "data"), "no space left")
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
