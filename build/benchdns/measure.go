package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// sample is one turn of one server.
type sample struct {
	Names     string          `json:"names"` // distribution
	Round     int             `json:"round"` // from 0
	Peer      string          `json:"peer"`
	Queries   int64           `json:"queries"` // answered
	Lost      int64           `json:"lost"`
	Response  int             `json:"responseBytes"`
	Server    cpuTime         `json:"serverCPU"` // ns, of the answering process
	Store     cpuTime         `json:"storeCPU"`  // ns, of what it fetches its data from
	QPS       float64         `json:"qps"`
	Resident  int64           `json:"residentBytes"` // of the answering process, after the turn
	Latencies []time.Duration `json:"-"`
}

// perQuery is the processor time of the answering process for one answered query.
func (s sample) perQuery() time.Duration { return s.Server.total() / time.Duration(s.Queries) }

// entrant is a peer that takes part in the run.
type entrant struct {
	peer
	*server
}

// warmUp is how long a server is asked before each of its turns, unmeasured: its
// caches, the processor's and the client's are then in the state they stay in.
const warmUp = 200 * time.Millisecond

// measure lets the servers take turns, every round in the same order, so that a
// ratio within a round compares two moments that are close. progress is called
// after each turn. With an error it returns the samples of the rounds that were
// finished before.
func (b *bench) measure(ctx context.Context, all []entrant, progress func(sample)) ([]sample, error) {
	every := filepath.Join(b.dir, "queries-all")
	if err := b.writeQueryFile(every, inOrder(), b.work.Services); err != nil {
		return nil, err
	}
	for _, e := range all {
		if _, err := dnsperf(ctx, b.opts.clientCPUs, load{port: e.port, file: every}); err != nil {
			return nil, fmt.Errorf("%s: every name once: %w", e.name, err)
		}
	}
	var samples, round []sample
	for _, names := range b.opts.names {
		pick, err := distribution(names, b.work.Services, b.opts.zipf, 1)
		if err != nil {
			return samples, err
		}
		file := filepath.Join(b.dir, "queries-"+names)
		if err := b.writeQueryFile(file, pick, b.opts.queries); err != nil {
			return samples, err
		}
		for n := range b.opts.rounds {
			round = round[:0]
			for _, e := range all {
				s, err := b.turn(ctx, e, file)
				if err != nil {
					return samples, fmt.Errorf("%s: %w", e.name, err)
				}
				s.Names, s.Round = names, n
				round = append(round, s)
				progress(s)
			}
			samples = append(samples, round...)
		}
	}
	return samples, nil
}

// turn measures one server once: its processor time while as many queries as it
// can take are answered, then the latency of each answer at a fixed rate that
// leaves every server idle most of the time.
func (b *bench) turn(ctx context.Context, e entrant, file string) (sample, error) {
	s := sample{Peer: e.name}
	cpus := b.opts.clientCPUs
	if _, err := dnsperf(ctx, cpus, load{port: e.port, file: file, limit: warmUp}); err != nil {
		return s, err
	}
	server, store, err := e.cpu()
	if err != nil {
		return s, err
	}
	r, err := dnsperf(ctx, cpus, load{port: e.port, file: file, limit: b.opts.seconds})
	if err != nil {
		return s, err
	}
	serverAfter, storeAfter, err := e.cpu()
	if err != nil {
		return s, err
	}
	s.Server, s.Store = serverAfter.sub(server), storeAfter.sub(store)
	s.Queries, s.Lost, s.QPS, s.Response = r.Completed, r.Lost, r.QPS, r.Response
	if b.opts.rate > 0 {
		r, err := dnsperf(ctx, cpus, load{port: e.port, file: file, limit: b.opts.latency, rate: b.opts.rate, verbose: true})
		if err != nil {
			return s, err
		}
		s.Latencies = r.Latencies
	}
	s.Resident, err = residentSize(e.main.pid())
	return s, err
}

// cpu reads the processor time of the server and of its store.
func (s *server) cpu() (server, store cpuTime, err error) {
	if server, err = processTime(s.main.pid()); err != nil {
		return server, store, s.main.failure(err)
	}
	if s.store != nil {
		if store, err = processTime(s.store.pid()); err != nil {
			err = s.store.failure(err)
		}
	}
	return server, store, err
}

func (b *bench) writeQueryFile(path string, pick picker, count int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := writeQueries(f, b.work, pick, count); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
