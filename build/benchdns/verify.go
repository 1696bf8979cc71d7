package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/miekg/dns"
)

// udpSize is the EDNS buffer size that is asked with, the one DNS Flag Day 2020
// recommends.
const udpSize = 1232

// query returns an A query for name (without the final dot) with EDNS.
func query(name string) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name+".", dns.TypeA)
	m.SetEdns0(udpSize, false)
	return m
}

// answered returns the addresses of reply, sorted. Anything but a success that
// answers the question of m with address records of its name is an error.
func answered(m, reply *dns.Msg, ttl int) ([]netip.Addr, error) {
	if reply.Rcode != dns.RcodeSuccess {
		return nil, errors.New(dns.RcodeToString[reply.Rcode])
	}
	if len(reply.Question) != 1 || reply.Question[0] != m.Question[0] || reply.Truncated || reply.IsEdns0() == nil {
		return nil, fmt.Errorf("not a whole answer to the question, with EDNS: %v", reply)
	}
	var all []netip.Addr
	for _, rr := range reply.Answer {
		a, ok := rr.(*dns.A)
		if !ok || a.Hdr.Name != m.Question[0].Name || int(a.Hdr.Ttl) > ttl {
			return nil, fmt.Errorf("unexpected record: %v", rr)
		}
		address, _ := netip.AddrFromSlice(a.A.To4())
		all = append(all, address)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all, nil
}

// ask asks the server on port for service s and compares the answer with the
// workload.
func (b *bench) ask(ctx context.Context, port, s int) error {
	m := query(b.work.name(s))
	client := dns.Client{Timeout: time.Second, UDPSize: udpSize}
	reply, _, err := client.ExchangeContext(ctx, m, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	got, err := answered(m, reply, b.work.TTL)
	if err != nil {
		return fmt.Errorf("%s: %w", b.work.name(s), err)
	}
	if want := b.work.addresses(s); !slices.Equal(got, want) {
		return fmt.Errorf("%s: got %v, want %v", b.work.name(s), got, want)
	}
	return nil
}

// verify waits until the server gives the last service and then asks for a sample
// of all. It fails on the first wrong answer.
func (b *bench) verify(ctx context.Context, p peer, s *server) error {
	const samples = 200
	check := func() error { return b.ask(ctx, s.port, b.work.Services-1) }
	if p.constant {
		check = func() error {
			_, err := dns.ExchangeContext(ctx, query(b.work.name(0)), net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
			return err
		}
	}
	if err := s.main.ready(ctx, time.Minute, check); err != nil {
		return err
	}
	if s.load == 0 {
		s.load = time.Since(s.main.started)
	}
	if p.constant {
		return nil
	}
	for i := range samples {
		if err := b.ask(ctx, s.port, i*b.work.Services/samples); err != nil {
			return s.main.failure(fmt.Errorf("wrong answer: %w", err))
		}
	}
	return nil
}
