package main

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The kernel says when a message came, not when it was read.
func TestArrival(t *testing.T) {
	before := time.Now()
	port := serveDNS(t, dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetReply(r)) }))
	conn, err := dialStamped(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wire, err := query("web.fluid.internal").Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(wire); err != nil {
		t.Fatal(err)
	}
	control := make([]byte, 128)
	_, n, _, _, err := conn.ReadMsgUDPAddrPort(wire, control)
	if err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	never := before.Add(-time.Hour)
	// The two clocks are read in different ways.
	if got := arrival(control[:n], never); got.Before(before.Add(-time.Millisecond)) || got.After(after.Add(time.Millisecond)) {
		t.Errorf("got %v, want between %v and %v", got, before, after)
	}
	if got := arrival(nil, never); got != never {
		t.Errorf("without a stamp: got %v, want %v", got, never)
	}
}
