package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

func processors() int { return runtime.NumCPU() }

// tick is the unit of the kernel's accounting of a process (USER_HZ).
const tick = 10 * time.Millisecond

// processor returns the processor time that a process and its children have
// taken.
func processor(pid int) (cost, error) {
	all, err := family(pid)
	if err != nil {
		return cost{}, err
	}
	var c cost
	for _, id := range all {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(id), "stat"))
		if err != nil {
			return cost{}, err
		}
		// The name of the program, in parentheses, may hold spaces.
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		user, err1 := strconv.Atoi(fields[11])
		system, err2 := strconv.Atoi(fields[12])
		if err1 != nil || err2 != nil {
			return cost{}, fmt.Errorf("odd accounting of process %d", id)
		}
		c.user += time.Duration(user) * tick
		c.system += time.Duration(system) * tick
	}
	return c, nil
}

// family returns a process and its descendants.
func family(pid int) ([]int, error) {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		if err != nil {
			return nil, err
		}
		for _, path := range tasks {
			data, err := os.ReadFile(path)
			if err != nil {
				continue // the thread is gone
			}
			for _, f := range strings.Fields(string(data)) {
				if id, err := strconv.Atoi(f); err == nil && !slices.Contains(all, id) {
					all = append(all, id)
				}
			}
		}
	}
	return all, nil
}

// ask checks that a server gives all instances of a service.
func ask(port int, name string, want int) error {
	m, _, err := (&dns.Client{Timeout: time.Second}).Exchange(new(dns.Msg).SetQuestion(name+".", dns.TypeA), net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil && len(m.Answer) != want {
		err = fmt.Errorf("%s with %d records, want %d", dns.RcodeToString[m.Rcode], len(m.Answer), want)
	}
	return err
}

const etcdPort = "23791"

// startEtcd starts etcd and fills it in the form that CoreDNS reads.
func startEtcd(ctx context.Context, d *data) (*exec.Cmd, error) {
	url := "http://127.0.0.1:" + etcdPort
	peer := "http://127.0.0.1:23792"
	if err := os.RemoveAll(filepath.Join(d.dir, "etcd")); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "etcd", "--data-dir", filepath.Join(d.dir, "etcd"), "--listen-client-urls", url,
		"--advertise-client-urls", url, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default="+peer, "--unsafe-no-fsync", "--log-level", "error")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	err := fillEtcd(ctx, url, d)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return cmd, nil
}

func fillEtcd(ctx context.Context, url string, d *data) error {
	type put struct {
		RequestPut map[string]string `json:"requestPut"`
	}
	var ops []put
	flush := func() error {
		body, err := json.Marshal(map[string]any{"success": ops})
		if err != nil {
			return err
		}
		ops = nil
		return post(ctx, url+"/v3/kv/txn", body)
	}
	text := base64.StdEncoding.EncodeToString
	for s := range d.services {
		for i := range d.instances {
			key := fmt.Sprintf("/skydns/internal/fluid/%s/i%d", d.name(s), i)
			value := fmt.Sprintf(`{"host":"%s","ttl":5}`, d.addr(s, i))
			ops = append(ops, put{map[string]string{"key": text([]byte(key)), "value": text([]byte(value))}})
			if len(ops) == 100 {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// post sends a request, again for a while if etcd is not up yet.
func post(ctx context.Context, url string, body []byte) error {
	pause := time.NewTicker(100 * time.Millisecond)
	defer pause.Stop()
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("status %s", resp.Status)
		}
		if try == 100 || ctx.Err() != nil {
			return err
		}
		<-pause.C
	}
}
