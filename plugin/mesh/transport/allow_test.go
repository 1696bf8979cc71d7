package transport

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestAllowList(t *testing.T) {
	for _, tc := range []struct {
		list, addr string
		want       bool
	}{
		{"", "203.0.113.9", true},
		{"10.0.0.0/8", "10.1.2.3", true},
		{"10.0.0.0/8", "11.0.0.1", false},
		{"10.0.0.0/8", "::ffff:10.1.2.3", true},
		{"10.0.0.0/8", "::ffff:11.0.0.1", false},
		{"::ffff:10.0.0.0/104", "10.1.2.3", true},
		{"10.0.0.9", "10.0.0.9", true},
		{"10.0.0.9", "10.0.0.8", false},
		{"10.9.9.9/8", "10.0.0.1", true}, // host bits are ignored
		{"10.0.0.0/8, 2001:db8::/32", "2001:db8::1", true},
		{"2001:db8::/32", "10.0.0.1", false},
		{"2001:db8::/32", "2001:db8::1%eth0", true},
		{"0.0.0.0/0", "2001:db8::1", false},
	} {
		l, err := ParseAllowList(tc.list)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Allows(netip.MustParseAddr(tc.addr)); got != tc.want {
			t.Errorf("%q allows %s: %v, want %v", tc.list, tc.addr, got, tc.want)
		}
	}
	for _, bad := range []string{"10.0.0.0/33", "x", "10.0.0.0/8,y", "::ffff:0:0/80", "fe80::1%eth0"} {
		if l, err := ParseAllowList(bad); err == nil || !strings.Contains(err.Error(), "prefix") {
			t.Errorf("ParseAllowList(%q) = %v, %v", bad, l, err)
		}
	}
}

func TestAdvertised(t *testing.T) {
	for _, tc := range []struct{ given, bound, want string }{
		{"", "10.0.0.1:7946", "10.0.0.1:7946"},
		{"192.0.2.7:9000", "10.0.0.1:7946", "192.0.2.7:9000"},
		{"192.0.2.7:0", "10.0.0.1:7946", "192.0.2.7:7946"},
		{"", "[::ffff:10.0.0.1]:7946", "10.0.0.1:7946"},
	} {
		var given netip.AddrPort
		if tc.given != "" {
			given = netip.MustParseAddrPort(tc.given)
		}
		got, err := advertised(given, netip.MustParseAddrPort(tc.bound))
		if err != nil || got.String() != tc.want {
			t.Errorf("advertised(%q, %q) = %v, %v, want %s", tc.given, tc.bound, got, err, tc.want)
		}
	}
}

func TestPickAddr(t *testing.T) {
	for _, tc := range []struct {
		name  string
		addrs []string
		v6    bool
		want  string
	}{
		{"private before public", []string{"127.0.0.1/8", "203.0.113.9/24", "10.0.0.9/8"}, false, "10.0.0.9"},
		{"public", []string{"127.0.0.1/8", "203.0.113.9/24", "fd00::1/8"}, false, "203.0.113.9"},
		{"IPv6 only where bound", []string{"fd00::1/8"}, false, "invalid IP"},
		{"IPv4 before IPv6", []string{"fd00::1/8", "203.0.113.9/24"}, true, "203.0.113.9"},
		{"IPv6", []string{"fe80::1/64", "2001:db8::1/64", "fd00::1/8"}, true, "fd00::1"},
		{"none", []string{"127.0.0.1/8", "169.254.0.1/16", "::1/128"}, true, "invalid IP"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var addrs []net.Addr
			for _, s := range tc.addrs {
				ip, n, err := net.ParseCIDR(s)
				if err != nil {
					t.Fatal(err)
				}
				addrs = append(addrs, &net.IPNet{IP: ip, Mask: n.Mask})
			}
			if got, _ := pickAddr(addrs, tc.v6); got.String() != tc.want {
				t.Errorf("picked %s, want %s", got, tc.want)
			}
		})
	}
}
