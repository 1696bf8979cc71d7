// Command nemesis runs a cluster of agents as real processes, each in a network
// namespace of its own, breaks it in every way it knows while clients write and
// read over HTTP, and checks that the history is linearizable: no acknowledged
// write lost, no stale linearizable read.
//
// Consensus runs over mutual TLS and the HTTP interface over TLS with a token,
// with keys that the program makes. It needs iproute2 and Linux, and root or
// unprivileged user namespaces; it sends nothing outside the namespaces it
// makes, and all of them, and every process in them, end with it.
//
//	nemesis -agents 5 -duration 60s -seed 7
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// options say what to run.
type options struct {
	binary   string
	agents   int
	clients  int
	duration time.Duration
	seed     uint64
	faults   []string
	dir      string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{}
	fs := flag.NewFlagSet("nemesis", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.binary, "agent", "build/bin/fluid-agent", "the agent's binary")
	fs.IntVar(&o.agents, "agents", 5, "agents in the cluster, 1 to 7")
	fs.IntVar(&o.clients, "clients", 24, "clients that write and read at once")
	fs.DurationVar(&o.duration, "duration", time.Minute, "how long to go on breaking things")
	fs.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "decides which fault comes when")
	faults := fs.String("faults", "", "faults to choose from, comma-separated (default: all that fit the number of agents)")
	fs.StringVar(&o.dir, "dir", "", "directory for data and logs (default: a temporary one, kept if something is wrong)")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if o.agents < 1 || o.agents > maxAgents || o.clients < 1 {
		return o, fmt.Errorf("-agents must be 1 to %d, -clients 1 or more", maxAgents)
	}
	all := faultNames(o.agents)
	o.faults = all
	if *faults != "" {
		o.faults = strings.Split(*faults, ",")
	}
	for _, f := range o.faults {
		if _, ok := faultsByName[f]; !ok || faultsByName[f].agents > o.agents {
			return o, fmt.Errorf("-faults: %q is not one of %s", f, strings.Join(all, ", "))
		}
	}
	var err error
	o.binary, err = filepath.Abs(o.binary)
	return o, err
}

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stderr)
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			_, _ = fmt.Fprintln(stderr, "nemesis:", err)
		}
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv(insideEnv) == "" {
		return reenter(ctx, args, stdout, stderr)
	}
	if err := inside(ctx, o, stdout); err != nil {
		_, _ = fmt.Fprintln(stderr, "nemesis:", err)
		return 1
	}
	return 0
}

// inside is the program in its own namespaces.
func inside(ctx context.Context, o options, out io.Writer) (err error) {
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "nemesis"); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				err = fmt.Errorf("%w\nlogs and data are in %s, the run was -seed %d", err, o.dir, o.seed)
				return
			}
			_ = os.RemoveAll(o.dir)
		}()
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	net, err := newNetwork(ctx, o.agents)
	if err != nil {
		return err
	}
	c, err := newCluster(ctx, o, net)
	if err != nil {
		return err
	}
	defer c.stop()
	_, _ = fmt.Fprintf(out, "seed %d, %d agents, faults: %s\n", o.seed, o.agents, strings.Join(o.faults, " "))
	if err := c.form(ctx); err != nil {
		return err
	}
	w := newWorkload(c, o)
	if err := w.during(ctx, func(ctx context.Context) error { return breakThings(ctx, c, w, o, out) }); err != nil {
		return err
	}
	if err := w.finish(ctx); err != nil {
		return err
	}
	w.report(out)
	return w.check(out, o.dir)
}
