// Command benchdns measures what one DNS answer costs Fluid and others.
//
//	make bench-dns
//	go run ./build/benchdns -rounds 3 -seconds 2s -peers fluid,hosts,nsd
//
// It starts Fluid (build/coredns and fluid-agent) and its peers on loopback, all
// with the same names and addresses, checks a sample of their answers, and lets
// them take turns in front of Debian's dnsperf, the servers on one processor and
// dnsperf on another. It reports the processor time, user and system, that the
// answering process used for each query that was answered, from the kernel's own
// accounting; rates and latencies stand beside it as secondary information. A
// ratio compares two turns of one round, and of the rounds the median is shown.
// Rates depend on the machine and on its neighbours, ratios much less.
//
// The peers of Fluid that are CoreDNS run on the CoreDNS of this module's go.mod,
// in front of them the same plugins. Every choice that is left favours them: a
// cache holds all names and expires none, and Fluid alone shuffles its answers.
//
// It ends within -timeout, and leaves no process or temporary file, also when it
// is interrupted; the rounds that were finished then are reported all the same.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchdns:", err)
		os.Exit(1)
	}
}

// run is one run of the harness; progress and the table go to out.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	opts, err := parseOptions(args, out)
	if err != nil {
		return err
	}
	// Where Debian has name servers, also for users who have no such PATH.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, opts.timeout)
	defer cancel()
	b, err := newBench(opts, out)
	if err != nil {
		return err
	}
	defer b.undo.run()

	var absent []absence
	if absent, err = b.provide(ctx); err != nil {
		return err
	}
	entrants, err := b.startAll(ctx, absent)
	if err != nil {
		return err
	}
	// From here on the harness keeps out of the servers' way.
	self := exec.CommandContext(ctx, "taskset", "-a", "-c", "-p", opts.clientCPUs, strconv.Itoa(os.Getpid()))
	if text, err := self.CombinedOutput(); err != nil {
		return fmt.Errorf("taskset: %w: %s", err, text)
	}
	rep := newReport(b, entrants, absent)
	err = b.fill(ctx, rep, entrants)
	if len(rep.Samples) > 0 && (err == nil || ctx.Err() != nil) {
		rep.Interrupted = err != nil
		if rep.Interrupted {
			opts.readme = "" // for whole runs only
		}
		err = errors.Join(err, rep.write(opts.out, opts.readme, out))
	}
	if err != nil || rep.Churn == nil {
		return err
	}
	return rep.Churn.err()
}

// fill measures and puts into the report what it finds. What was found before an
// error is in it too.
func (b *bench) fill(ctx context.Context, rep *report, entrants []entrant) (err error) {
	opts := b.opts
	b.logf("measuring %d servers, %d rounds of %s, names %s",
		len(entrants), opts.rounds, opts.seconds, strings.Join(opts.names, " and "))
	rep.Samples, err = b.measure(ctx, entrants, func(s sample) {
		b.logf("  %-8s %d  %-11s %7.2f µs/query %8.0f q/s", s.Names, s.Round+1, s.Peer, micros(s.perQuery()), s.QPS)
	})
	if err != nil {
		return err
	}
	for _, e := range entrants {
		if e.pprof != "" {
			if err := b.takeProfile(ctx, e); err != nil {
				return err
			}
		}
		if err := b.verify(ctx, e.peer, e.server); err != nil {
			return fmt.Errorf("after the measurement: %w", err)
		}
	}
	if opts.churn == 0 {
		return nil
	}
	s := entrants[slices.IndexFunc(entrants, func(e entrant) bool { return e.name == fluid })].server
	urgent := b.urgent(ctx, s.main.pid(), os.Getpid())
	churn, err := b.churn(ctx, s)
	if err != nil {
		return fmt.Errorf("churn: %w", err)
	}
	churn.Urgent = urgent
	rep.Churn = churn
	return nil
}

// absence is a peer that could not take part, and why.
type absence struct {
	Peer   string `json:"peer"`
	Reason string `json:"reason"`
}

// provide checks, and with -install provides, the programs of all peers. A
// missing tool of the harness itself is an error.
func (b *bench) provide(ctx context.Context) ([]absence, error) {
	wanted := []peer{tools}
	for _, p := range peers() {
		if slices.Contains(b.opts.peers, p.name) {
			wanted = append(wanted, p)
		}
	}
	var packages []string
	for _, p := range wanted {
		if len(p.missing()) > 0 {
			packages = append(packages, p.packages...)
		}
	}
	slices.Sort(packages)
	packages = slices.Compact(packages)
	if len(packages) > 0 && b.opts.install && os.Geteuid() == 0 {
		b.logf("installing %s", strings.Join(packages, " "))
		// A list of packages that is out of date may do; if not, the next step says so.
		if text, err := exec.CommandContext(ctx, "apt-get", "update").CombinedOutput(); err != nil {
			b.logf("  %v: %s", err, tail(text, 3))
		}
		args := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if text, err := cmd.CombinedOutput(); err != nil {
			b.logf("  %v: %s", err, tail(text, 3))
		}
	}
	var absent []absence
	for _, p := range wanted {
		none := p.missing()
		if len(none) == 0 {
			continue
		}
		reason := fmt.Sprintf("not installed: %s (%s)", strings.Join(none, ", "), installHint(p.packages))
		if p.name == tools.name {
			return nil, errors.New(reason)
		}
		b.logf("%s: %s", p.name, reason)
		absent = append(absent, absence{p.name, reason})
	}
	return absent, nil
}

// startAll starts the servers in the order of -peers and verifies each.
func (b *bench) startAll(ctx context.Context, absent []absence) ([]entrant, error) {
	var all []entrant
	var take []peer
	for _, name := range b.opts.peers {
		if slices.ContainsFunc(absent, func(a absence) bool { return a.Peer == name }) {
			continue
		}
		list := peers()
		take = append(take, list[slices.IndexFunc(list, func(p peer) bool { return p.name == name })])
		if name == fluid {
			take = append(take, b.opts.variants...)
		}
	}
	for _, p := range take {
		b.logf("starting %s", p.name)
		e := entrant{peer: p}
		var err error
		if e.server, err = p.start(ctx, b); err == nil {
			err = b.verify(ctx, p, e.server)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		all = append(all, e)
	}
	return all, nil
}
