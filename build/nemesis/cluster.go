package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/pki"
)

// patience bounds each wait for the cluster to become whole.
const patience = 90 * time.Second

// cluster is the agents and how to reach them.
type cluster struct {
	net    *network
	binary string
	dir    string
	token  string
	http   *http.Client
	agents []*agent // agents[0] is number 1
}

// agent is one agent, as a process that comes and goes.
type agent struct {
	c      *cluster
	number int
	name   string
	dir    string

	mu     sync.Mutex // guards what follows
	cmd    *exec.Cmd  // nil while it does not run
	exited chan struct{}
}

func newCluster(ctx context.Context, o options, net *network) (*cluster, error) {
	if _, err := os.Stat(o.binary); err != nil {
		return nil, fmt.Errorf("%w; build it with make build", err)
	}
	c := &cluster{net: net, binary: o.binary, dir: o.dir}
	if err := c.makeKeys(); err != nil {
		return nil, err
	}
	for _, i := range net.all() {
		name := fmt.Sprintf("node%d", i)
		c.agents = append(c.agents, &agent{c: c, number: i, name: name, dir: filepath.Join(o.dir, name)})
	}
	return c, ctx.Err()
}

// makeKeys makes what fluidctl tls init and tls issue make.
func (c *cluster) makeKeys() error {
	now := time.Now()
	ca, err := pki.NewCA(now)
	if err != nil {
		return err
	}
	caCert, _, err := ca.PEM()
	if err != nil {
		return err
	}
	token, err := pki.NewSecret()
	if err != nil {
		return err
	}
	secret, err := pki.NewSecret()
	if err != nil {
		return err
	}
	c.token = strings.TrimSpace(string(token))
	files := []pki.File{
		{Path: c.file("ca.pem"), Mode: pki.PublicMode, Data: caCert},
		{Path: c.file("token"), Mode: pki.SecretMode, Data: token},
		{Path: c.file("join-secret"), Mode: pki.SecretMode, Data: secret},
	}
	for _, i := range c.net.all() {
		name := fmt.Sprintf("node%d", i)
		cert, key, err := ca.Issue(pki.Request{Identity: pki.Identity{Name: name}, IPs: []netip.Addr{netip.MustParseAddr(ip(i))}}, now)
		if err != nil {
			return err
		}
		files = append(files, pki.File{Path: c.file(name + ".pem"), Mode: pki.PublicMode, Data: cert},
			pki.File{Path: c.file(name + ".key"), Mode: pki.SecretMode, Data: key})
	}
	if err := pki.WriteNew(files...); err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(caCert)
	c.http = &http.Client{Timeout: clientTimeout, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, MaxIdleConnsPerHost: 64,
	}}
	return nil
}

func (c *cluster) file(name string) string { return filepath.Join(c.dir, name) }

func (a *agent) url() string { return "https://" + ip(a.number) + ":18080" }

// start runs the agent, which joins through peer, or makes the cluster if that
// is nil. The log goes on where it was.
func (a *agent) start(peer *agent) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cmd != nil {
		return nil
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(a.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(context.Background(), "ip", "netns", "exec", namespace(a.number), a.c.binary)
	cmd.Stdout, cmd.Stderr = log, log
	cert, key, ca := a.c.file(a.name+".pem"), a.c.file(a.name+".key"), a.c.file("ca.pem")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + a.dir,
		"RAFT_ID=" + a.name, "RAFT_BIND=" + ip(a.number) + ":11000",
		"FLUID_HTTP_BIND=" + ip(a.number) + ":18080",
		"FLUID_DATA_DIR=" + filepath.Join(a.dir, "data"), "FLUID_SOCKET=" + filepath.Join(a.dir, "agent.sock"),
		"RAFT_TLS_CERT_FILE=" + cert, "RAFT_TLS_KEY_FILE=" + key, "RAFT_TLS_CA_FILE=" + ca,
		"FLUID_TLS_CERT_FILE=" + cert, "FLUID_TLS_KEY_FILE=" + key, "FLUID_TLS_CA_FILE=" + ca,
		"FLUID_TOKEN_FILE=" + a.c.file("token"), "RAFT_JOIN_SECRET_FILE=" + a.c.file("join-secret"),
	}
	if peer == nil {
		cmd.Env = append(cmd.Env, "RAFT_BOOTSTRAP=true")
	} else {
		cmd.Env = append(cmd.Env, "RAFT_JOIN_URL="+peer.url())
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(exited)
	}()
	a.cmd, a.exited = cmd, exited
	return nil
}

// signal sends sig to the process, if it runs.
func (a *agent) signal(sig os.Signal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cmd != nil {
		_ = a.cmd.Process.Signal(sig) // it may have ended
	}
}

// kill ends the process as kill -9 does and waits for that.
func (a *agent) kill() {
	a.signal(syscall.SIGKILL)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cmd != nil {
		<-a.exited
		a.cmd = nil
	}
}

// died reports whether the process ended by itself.
func (a *agent) died() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cmd == nil {
		return false
	}
	select {
	case <-a.exited:
		return true
	default:
		return false
	}
}

// wipe removes the data of an agent that does not run: a lost disk.
func (a *agent) wipe() error { return os.RemoveAll(filepath.Join(a.dir, "data")) }

// restart starts an agent again. It never makes a cluster, unless it is alone
// and has state.
func (c *cluster) restart(a *agent) error {
	if len(c.agents) == 1 {
		return a.start(nil)
	}
	return a.start(c.agents[a.number%len(c.agents)])
}

func (c *cluster) stop() {
	for _, a := range c.agents {
		a.kill()
	}
}

// form starts all agents and waits until they are one cluster.
func (c *cluster) form(ctx context.Context) error {
	for i, a := range c.agents {
		var peer *agent
		if i > 0 {
			peer = c.agents[0]
		}
		if err := a.start(peer); err != nil {
			return err
		}
	}
	return c.await(ctx, "all agents are one healthy cluster", c.whole)
}

// await waits until ok returns nil.
func (c *cluster) await(ctx context.Context, what string, ok func(context.Context) error) error {
	asked := ctx
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		if asked.Err() != nil {
			return asked.Err()
		}
		for _, a := range c.agents {
			if a.died() {
				return fmt.Errorf("%s ended by itself, see %s.log", a.name, a.dir)
			}
		}
		if !pause(ctx, 100*time.Millisecond) {
			return fmt.Errorf("not within %s: %s: %w", patience, what, err)
		}
	}
}

// whole returns nil when a leader sees all agents healthy, with as many voters
// as they can be.
func (c *cluster) whole(ctx context.Context) error {
	r, _, err := c.leader(ctx)
	if err != nil {
		return err
	}
	voters := 0
	for _, s := range r.Servers {
		if !s.Healthy {
			return fmt.Errorf("%s is not healthy", s.Name)
		}
		if s.Suffrage == "voter" {
			voters++
		}
	}
	if want := min(len(c.agents), 3); len(r.Servers) != len(c.agents) || voters < want {
		return fmt.Errorf("%d servers and %d voters, want %d and at least %d", len(r.Servers), voters, len(c.agents), want)
	}
	return nil
}

// leader returns the view of the agent that leads in the highest term.
func (c *cluster) leader(ctx context.Context) (api.Raft, *agent, error) {
	type view struct {
		raft api.Raft
		of   *agent
	}
	views := make(chan view, len(c.agents))
	var wg sync.WaitGroup
	for _, a := range c.agents {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			var r api.Raft
			if status, err := c.call(ctx, a, http.MethodGet, "/v1/raft", "", nil, &r); err == nil && status == http.StatusOK && r.State == "leader" {
				views <- view{r, a}
			}
		})
	}
	wg.Wait()
	close(views)
	var best view
	for v := range views {
		if best.of == nil || v.raft.Term > best.raft.Term {
			best = v
		}
	}
	if best.of == nil {
		return api.Raft{}, nil, errors.New("no agent leads")
	}
	return best.raft, best.of, nil
}

// call sends a request to one agent and reads the answer into out, which is a
// problem if the status is an error. key is the Idempotency-Key.
func (c *cluster) call(ctx context.Context, a *agent, method, path, key string, body []byte, out any) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.url()+path, strings.NewReader(string(body)))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(resp.Body).Decode(out)
	return resp.StatusCode, err
}

// pause waits for d; false if ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
