// Command benchdns measures what an answer costs: the processor time, user and
// system, that each of several DNS servers takes for a query, by the process's
// own accounting.
//
// The servers hold the same services and run one after another, each on its
// own processor, with dnsperf on another. Every round asks all of them, so
// that what disturbs the machine disturbs them alike; the median of the rounds
// counts. Servers whose program is not installed are left out and named.
//
//	go run ./build/benchdns -coredns build/bin/coredns -out bench-dns.svg
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type config struct {
	coredns   string
	services  int
	instances int
	queries   int
	rounds    int
	out       string
	only      string
}

func main() {
	var cfg config
	flag.StringVar(&cfg.coredns, "coredns", "build/bin/coredns", "CoreDNS with fluid; with the etcd plugin too if built with -tags etcd")
	flag.IntVar(&cfg.services, "services", 10_000, "services")
	flag.IntVar(&cfg.instances, "instances", 3, "instances of each service")
	flag.IntVar(&cfg.queries, "queries", 100_000, "queries a run")
	flag.IntVar(&cfg.rounds, "rounds", 3, "rounds over all servers")
	flag.StringVar(&cfg.out, "out", "", "file for a chart in SVG")
	flag.StringVar(&cfg.only, "only", "", "comma-separated servers to measure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchdns:", err)
		os.Exit(1)
	}
}

// row is what one server took.
type row struct {
	server string
	kind   string // of the names asked for
	costs  []cost // by round
}

func run(ctx context.Context, cfg config) error {
	dir, err := os.MkdirTemp("", "benchdns")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	d, err := prepare(cfg, dir)
	if err != nil {
		return err
	}
	defer d.close()
	var rows []*row
	for round := range cfg.rounds {
		for _, s := range servers() {
			if cfg.only != "" && !slices.Contains(strings.Split(cfg.only, ","), s.name) {
				continue
			}
			if why := s.missing(cfg); why != "" {
				if round == 0 {
					fmt.Fprintf(os.Stderr, "left out %s: %s\n", s.name, why)
				}
				continue
			}
			costs, err := measure(ctx, cfg, d, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			for kind, c := range costs {
				rows = record(rows, s.name, kind, c)
				fmt.Fprintf(os.Stderr, "round %d: %-14s %-8s %6.1f µs a query, %.0f queries/s\n", round+1, s.name, kind, c.micros(), c.rate)
			}
		}
	}
	report(os.Stdout, cfg, rows)
	if cfg.out == "" {
		return nil
	}
	return os.WriteFile(filepath.Clean(cfg.out), chart(cfg, rows), 0o644)
}

func record(rows []*row, server, kind string, c cost) []*row {
	i := slices.IndexFunc(rows, func(r *row) bool { return r.server == server && r.kind == kind })
	if i < 0 {
		return append(rows, &row{server: server, kind: kind, costs: []cost{c}})
	}
	rows[i].costs = append(rows[i].costs, c)
	return rows
}

// measure starts a server, asks it for both kinds of names, and stops it.
func measure(ctx context.Context, cfg config, d *data, s server) (costs map[string]cost, err error) {
	p, err := s.launch(ctx, cfg, d)
	if err != nil {
		return nil, err
	}
	defer func() {
		if stopErr := p.stop(); err == nil {
			err = stopErr
		}
	}()
	costs = map[string]cost{}
	for kind, file := range d.questions {
		if _, err := p.load(ctx, file, cfg.queries/10); err != nil { // warm up
			return nil, err
		}
		before, err := processor(p.cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		c, err := p.load(ctx, file, cfg.queries)
		if err != nil {
			return nil, err
		}
		after, err := processor(p.cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		c.user, c.system = after.user-before.user, after.system-before.system
		if p.backend != nil {
			c.note = "without etcd's own time"
		}
		costs[kind] = c
	}
	return costs, nil
}

// cost is what the answers to one run took.
type cost struct {
	user, system time.Duration
	answered     int
	rate         float64 // answers a second
	note         string
}

func (c cost) micros() float64 {
	return float64(c.user+c.system) / float64(time.Microsecond) / float64(c.answered)
}
