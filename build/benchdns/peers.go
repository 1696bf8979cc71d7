package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// peer is a server that Fluid is compared with, or Fluid itself.
type peer struct {
	name     string
	title    string   // the name as README.md writes it
	about    string   // what stands behind the name, for the table
	programs []string // that must be on PATH
	packages []string // the Debian packages that bring them
	// constant answers hold no data, so they are not compared with it.
	constant bool
	start    func(context.Context, *bench) (*server, error)
}

// server is a peer that runs.
type server struct {
	port  int
	main  *process      // what answers; its processor time is what is compared
	store *process      // what it fetches its data from, nil if none
	load  time.Duration // from its start to its first right answer
	pprof string        // address of its profiles, empty if none are wanted
}

// fluid is the name of the peer that all others are compared with.
const fluid = "fluid"

// peers lists every server that can be measured, in the order of the table.
func peers() []peer {
	return []peer{
		{name: fluid, title: "Fluid", about: "Fluid's build/coredns; the data comes from fluid-agent over the feed", start: startFluid},
		{name: "constant", title: "CoreDNS, a constant answer", about: "CoreDNS, a plugin that answers all with one prebuilt RRset by WriteMsg", constant: true, start: startConstant},
		{name: "hosts", title: "CoreDNS `hosts`", about: "CoreDNS, hosts plugin", start: startHosts},
		{name: "file", title: "CoreDNS `file`", about: "CoreDNS, file plugin", start: startFile(false)},
		{name: "file+cache", title: "CoreDNS `file` with `cache`", about: "CoreDNS, file plugin behind cache; all names fit, none expires", start: startFile(true)},
		{
			name: "etcd", title: "CoreDNS `etcd`", about: "CoreDNS, etcd plugin with an etcd server", start: startEtcd(false),
			programs: []string{"etcd"}, packages: []string{"etcd-server"},
		},
		{
			name: "etcd+cache", title: "CoreDNS `etcd` with `cache`", about: "CoreDNS, etcd plugin behind cache; all names fit, none expires", start: startEtcd(true),
			programs: []string{"etcd"}, packages: []string{"etcd-server"},
		},
		{
			name: "knot", title: "Knot DNS", about: "Knot DNS, one UDP worker", start: startKnot,
			programs: []string{"knotd"}, packages: []string{"knot"},
		},
		{
			name: "nsd", title: "NSD", about: "NSD, one server process", start: startNSD,
			programs: []string{"nsd"}, packages: []string{"nsd"},
		},
	}
}

// tools is what the harness itself needs.
var tools = peer{name: "benchdns", programs: []string{"dnsperf", "taskset"}, packages: []string{"dnsperf", "util-linux"}}

// missing returns the programs of p that are not on PATH.
func (p peer) missing() []string {
	var none []string
	for _, program := range p.programs {
		if _, err := exec.LookPath(program); err != nil {
			none = append(none, program)
		}
	}
	return none
}

// startCoreDNS runs program with the workload's data in the block data.
func (b *bench) startCoreDNS(ctx context.Context, name, program, data string) (*server, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{port: port}
	chain := b.opts.chain
	if b.opts.profile != "" {
		port, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		s.pprof = fmt.Sprintf("127.0.0.1:%d", port)
		chain = append(slices.Clip(chain), "pprof "+s.pprof)
	}
	path := filepath.Join(b.dir, name+".Corefile")
	if err := os.WriteFile(path, []byte(corefile(b.work, port, chain, data)), 0o600); err != nil {
		return nil, err
	}
	if s.main, err = b.start(name, b.opts.serverCPUs, nil, program, "-conf", path); err != nil {
		return nil, err
	}
	return s, nil
}

// startPeer runs the CoreDNS of the peers.
func (b *bench) startPeer(ctx context.Context, name, data string) (*server, error) {
	program, err := b.build(ctx, "peer-coredns", "./build/benchdns/coredns")
	if err != nil {
		return nil, err
	}
	return b.startCoreDNS(ctx, name, program, data)
}

func startConstant(ctx context.Context, b *bench) (*server, error) {
	return b.startPeer(ctx, "constant", constantBlock(b.work))
}

func startHosts(ctx context.Context, b *bench) (*server, error) {
	path, err := b.write("hosts", writeHosts)
	if err != nil {
		return nil, err
	}
	return b.startPeer(ctx, "hosts", hostsBlock(b.work, path))
}

func startFile(cached bool) func(context.Context, *bench) (*server, error) {
	return func(ctx context.Context, b *bench) (*server, error) {
		path, err := b.write("zone", writeZone)
		if err != nil {
			return nil, err
		}
		if cached {
			return b.startPeer(ctx, "file+cache", cacheBlock(b.work)+fileBlock(path))
		}
		return b.startPeer(ctx, "file", fileBlock(path))
	}
}

// startEtcd starts CoreDNS with an etcd server, one etcd for both variants. The
// etcd server has other processors than the one that answers.
func startEtcd(cached bool) func(context.Context, *bench) (*server, error) {
	return func(ctx context.Context, b *bench) (*server, error) {
		if b.etcd == nil {
			if err := b.startEtcdServer(ctx); err != nil {
				return nil, err
			}
		}
		name, data := "etcd", etcdBlock(b.etcdURL)
		if cached {
			name, data = "etcd+cache", cacheBlock(b.work)+data
		}
		s, err := b.startPeer(ctx, name, data)
		if err != nil {
			return nil, err
		}
		s.store = b.etcd
		return s, nil
	}
}

func (b *bench) startEtcdServer(ctx context.Context) error {
	client, err := freePort(ctx)
	if err != nil {
		return err
	}
	raft, err := freePort(ctx)
	if err != nil {
		return err
	}
	b.etcdURL = fmt.Sprintf("http://127.0.0.1:%d", client)
	peerURL := fmt.Sprintf("http://127.0.0.1:%d", raft)
	const batch = 1000
	b.etcd, err = b.start("etcd-server", b.opts.storeCPUs, nil, "etcd",
		"--name", "bench", "--data-dir", filepath.Join(b.dir, "etcd"), "--logger", "zap", "--log-level", "warn",
		"--max-txn-ops", strconv.Itoa(batch),
		"--listen-client-urls", b.etcdURL, "--advertise-client-urls", b.etcdURL,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL, "--initial-cluster", "bench="+peerURL)
	if err != nil {
		return err
	}
	err = b.etcd.ready(ctx, 30*time.Second, func() error { return b.get(ctx, b.etcdURL+"/health") })
	if err != nil {
		return err
	}
	for _, txn := range etcdTxns(b.work, batch) {
		if err := b.post(ctx, b.etcdURL+"/v3/kv/txn", txn); err != nil {
			return b.etcd.failure(err)
		}
	}
	return nil
}

func startKnot(ctx context.Context, b *bench) (*server, error) {
	return b.startAuthoritative(ctx, "knot", knotConfig, "knotd", "-c")
}

func startNSD(ctx context.Context, b *bench) (*server, error) {
	return b.startAuthoritative(ctx, "nsd", nsdConfig, "nsd", "-d", "-c")
}

// startAuthoritative runs a name server that reads a zone file, in a directory of
// its own.
func (b *bench) startAuthoritative(ctx context.Context, name string,
	config func(w workload, port int, dir, zone string) string, argv ...string,
) (*server, error) {
	zone, err := b.write("zone", writeZone)
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(path, []byte(config(b.work, port, dir, zone)), 0o600); err != nil {
		return nil, err
	}
	p, err := b.start(name, b.opts.serverCPUs, nil, append(argv, path)...)
	if err != nil {
		return nil, err
	}
	return &server{port: port, main: p}, nil
}

// installHint says how to get packages.
func installHint(packages []string) string {
	return "apt-get install --no-install-recommends " + strings.Join(packages, " ")
}
