package main

import (
	"bufio"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/record"
)

const zone = "fluid.internal"

// data is the same services in every form that a server reads.
type data struct {
	dir       string
	hosts     string            // /etc/hosts form
	zone      string            // master file
	socket    string            // of an agent's feed
	questions map[string]string // kind of names → file for dnsperf
	server    *feed.Server
	served    chan error
	services  int
	instances int
}

func (d *data) name(s int) string { return fmt.Sprintf("svc%05d", s) }

func (d *data) addr(s, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i), byte(s >> 8), byte(s)})
}

func prepare(cfg config, dir string) (*data, error) {
	d := &data{
		dir: dir, hosts: filepath.Join(dir, "hosts"), zone: filepath.Join(dir, "zone"), socket: filepath.Join(dir, "run", "agent.sock"),
		questions: map[string]string{}, served: make(chan error, 1), services: cfg.services, instances: cfg.instances,
	}
	var hosts, master strings.Builder
	fmt.Fprintf(&master, "$TTL 5\n@ IN SOA ns.dns hostmaster 1 60 10 86400 2\n@ IN NS ns.dns\nns.dns IN A 127.0.0.1\n")
	for s := range d.services {
		for i := range d.instances {
			fmt.Fprintf(&hosts, "%s %s.%s\n", d.addr(s, i), d.name(s), zone)
			fmt.Fprintf(&master, "%s IN A %s\n", d.name(s), d.addr(s, i))
		}
	}
	// The same draws every time, so that every server is asked the same.
	r := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(r, 1.1, 1, uint64(d.services-1))
	kinds := map[string]func() int{
		"uniform": func() int { return r.IntN(d.services) },
		"zipf":    func() int { return int(zipf.Uint64()) },
	}
	for kind, draw := range kinds {
		path := filepath.Join(dir, kind)
		f, err := os.Create(path)
		if err != nil {
			return nil, err
		}
		w := bufio.NewWriter(f)
		for range 50_000 {
			fmt.Fprintf(w, "%s.%s A\n", d.name(draw()), zone)
		}
		if err := errors.Join(w.Flush(), f.Close()); err != nil {
			return nil, err
		}
		d.questions[kind] = path
	}
	if err := errors.Join(os.WriteFile(d.hosts, []byte(hosts.String()), 0o644), os.WriteFile(d.zone, []byte(master.String()), 0o644)); err != nil {
		return nil, err
	}
	return d, d.serve()
}

// serve offers the services on a feed, as an agent does.
func (d *data) serve() error {
	c := catalog.New()
	pos := record.Position{Generation: 1, Index: 1}
	if _, err := c.Replace(pos, d.entries()); err != nil {
		return err
	}
	srv, err := feed.NewServer(feed.ServerConfig{Source: source{c}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	l, err := feed.Listen(d.socket, -1)
	if err != nil {
		return err
	}
	d.server = srv
	go func() { d.served <- srv.Serve(l) }()
	return nil
}

func (d *data) close() {
	d.server.Stop()
	if err := <-d.served; err != nil {
		fmt.Fprintln(os.Stderr, "benchdns:", err)
	}
}

func (d *data) entries() iter.Seq[record.Entry] {
	return func(yield func(record.Entry) bool) {
		for s := range d.services {
			for i := range d.instances {
				in := record.Instance{Service: d.name(s), Addrs: []netip.Addr{d.addr(s, i)}, Weight: record.DefaultWeight}
				in.Normalize()
				if !yield(record.Entry{Key: record.InstanceKey(in.Service, in.ID), Value: string(in.Append(nil)), Index: 1}) {
					return
				}
			}
		}
	}
}

// source is a state that never changes.
type source struct{ *catalog.Catalog }

func (s source) State() feed.State                     { return s }
func (source) ClusterID() string                       { return "bench" }
func (source) Changed(record.Position) <-chan struct{} { return nil }
func (s source) Status() feed.Status                   { return feed.Status{Commit: s.Position(), LeaderKnown: true} }
