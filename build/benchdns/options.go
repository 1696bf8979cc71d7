package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options is what a run was asked for.
type options struct {
	services, instances, ttl int
	rounds, queries, rate    int
	seconds, latency         time.Duration
	names, peers, chain      []string
	zipf                     float64
	out, readme              string
	churn                    int
	churnFor                 time.Duration
	serverCPUs, clientCPUs   string
	storeCPUs                string
	install                  bool
	coredns, agent           string
	variants                 []peer
	profile                  string
	timeout                  time.Duration
}

// parseOptions reads the command line; it writes usage and errors to out.
func parseOptions(args []string, out io.Writer) (options, error) {
	var o options
	var names, peerList, chain string
	all := make([]string, 0, len(peers()))
	for _, p := range peers() {
		all = append(all, p.name)
	}
	server, client, store := "0", "1", "2"
	if n := runtime.NumCPU(); n < 3 {
		client = strconv.Itoa(n - 1)
		store = client
	}
	f := flag.NewFlagSet("benchdns", flag.ContinueOnError)
	f.SetOutput(out)
	f.IntVar(&o.services, "services", 10000, "services, one name each")
	f.IntVar(&o.instances, "instances", 3, "instances of each service, one A record each")
	f.IntVar(&o.ttl, "ttl", 3600, "TTL of every record, `seconds`")
	f.IntVar(&o.rounds, "rounds", 5, "turns of each server for each distribution of names")
	f.DurationVar(&o.seconds, "seconds", 3*time.Second, "length of a measured turn")
	f.IntVar(&o.queries, "queries", 100000, "queries in the list that dnsperf repeats")
	f.StringVar(&names, "names", "uniform,zipf", "distributions of names")
	f.Float64Var(&o.zipf, "zipf", 1, "exponent of zipf names")
	f.StringVar(&peerList, "peers", strings.Join(all, ","), "servers to measure, in this order")
	f.StringVar(&chain, "chain", "bufsize 1232;errors", "plugins in front of the data in every CoreDNS, as lines of a Corefile")
	f.IntVar(&o.rate, "rate", 500, "queries per second while latencies are measured; 0: none are")
	f.DurationVar(&o.latency, "latency", 400*time.Millisecond, "how long latencies are measured in each turn")
	f.IntVar(&o.churn, "churn", 0, "measure Fluid's answers while this many `changes` per second arrive; 0: do not")
	f.DurationVar(&o.churnFor, "churn-time", 10*time.Second, "how long changes arrive, and as long they do not, with -churn")
	f.StringVar(&o.out, "out", filepath.Join("build", "dist", "bench-dns"), "`directory` for the table, the chart and the raw data")
	f.StringVar(&o.readme, "readme", "", "also put the short table into this `file`, in place of the one that is there")
	f.StringVar(&o.serverCPUs, "server-cpus", server, "processors of the servers, as taskset -c takes them")
	f.StringVar(&o.clientCPUs, "client-cpus", client, "processors of the client")
	f.StringVar(&o.storeCPUs, "store-cpus", store, "processors of etcd and of the agent")
	f.BoolVar(&o.install, "install", false, "as root, install missing Debian packages by apt-get first")
	f.StringVar(&o.coredns, "coredns", "", "Fluid's CoreDNS; empty: build it")
	f.Func("variant", "`NAME=PROGRAM`: measure another build of Fluid's CoreDNS too, such as the one before a change; repeatable", func(s string) error {
		name, program, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("want NAME=PROGRAM")
		}
		o.variants = append(o.variants, peer{name: name, about: "Fluid's CoreDNS, another build", start: startVariant(name, program)})
		return nil
	})
	f.StringVar(&o.agent, "agent", "", "fluid-agent; empty: build it")
	f.StringVar(&o.profile, "profile", "", "write a processor profile of every CoreDNS under load to this `directory`")
	f.DurationVar(&o.timeout, "timeout", 30*time.Minute, "end the run after this time")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.names, o.peers, o.chain = split(names, ","), split(peerList, ","), split(chain, ";")
	return o, o.validate(f.Args(), all)
}

func (o options) validate(rest, known []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q", rest[0])
	}
	for name, value := range map[string]int{
		"services": o.services, "instances": o.instances, "ttl": o.ttl, "rounds": o.rounds, "queries": o.queries,
	} {
		if value < 1 {
			return fmt.Errorf("-%s: %d is not a positive number", name, value)
		}
	}
	if o.services*o.instances > 1<<24-1<<16 {
		return fmt.Errorf("-services times -instances: %d addresses do not fit in 10.0.0.0/8", o.services*o.instances)
	}
	if o.instances > 50 {
		return fmt.Errorf("-instances: %d A records do not fit in a UDP answer", o.instances)
	}
	if o.seconds < 100*time.Millisecond || o.latency <= 0 || o.churnFor <= 0 {
		return errors.New("-seconds, -latency and -churn-time must be positive, -seconds at least 100ms")
	}
	for _, name := range o.peers {
		if !slices.Contains(known, name) {
			return fmt.Errorf("-peers: %q is none of %s", name, strings.Join(known, " "))
		}
	}
	if o.churn > 0 && !slices.Contains(o.peers, fluid) {
		return errors.New("-churn needs fluid among -peers")
	}
	for _, name := range o.names {
		if _, err := distribution(name, 1, o.zipf, 1); err != nil {
			return err
		}
	}
	return nil
}

// split returns the parts of list without the blanks around them.
func split(list, sep string) []string {
	var parts []string
	for part := range strings.SplitSeq(list, sep) {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}
