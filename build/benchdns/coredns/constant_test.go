package main

import (
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"
)

func TestConstant(t *testing.T) {
	tests := []struct {
		name, corefile string
		records        int // 0: refused
	}{
		{"one", "constant 10.0.0.1", 1},
		{"three", "constant 10.0.0.1 10.0.0.2 10.0.0.3", 3},
		{"none", "constant", 0},
		{"not an address", "constant ten", 0},
		{"IPv6", "constant ::1", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := caddy.NewTestController("dns", tt.corefile)
			c.ServerBlockKeys = []string{"fluid.internal:53"}
			err := setupConstant(c)
			if tt.records == 0 {
				if err == nil {
					t.Fatal("got no error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			h := dnsserver.GetConfig(c).Plugin[0](nil)
			w := dnstest.NewRecorder(&test.ResponseWriter{})
			m := new(dns.Msg)
			m.SetQuestion("svc00042.fluid.internal.", dns.TypeA)
			code, err := h.ServeDNS(t.Context(), w, m)
			if code != dns.RcodeSuccess || err != nil || len(w.Msg.Answer) != tt.records || w.Msg.Question[0] != m.Question[0] {
				t.Errorf("got %d, %v, %v", code, err, w.Msg)
			}
			if got, want := w.Msg.Answer[0].Header().Name, "svc00000.fluid.internal."; got != want {
				t.Errorf("owner: got %s, want %s", got, want)
			}
		})
	}
}
