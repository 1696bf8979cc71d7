package transport

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// AllowList says from which addresses packets and streams are taken. The empty
// list allows every address.
type AllowList []netip.Prefix

// ParseAllowList reads a comma list of prefixes and addresses; spaces are
// ignored. An IPv4 prefix written in its IPv6-mapped form means the IPv4 one.
func ParseAllowList(s string) (AllowList, error) {
	var l AllowList
	for f := range strings.SplitSeq(s, ",") {
		f = strings.TrimSpace(f)
		if f == "" {
			continue
		}
		p, err := parsePrefix(f)
		if err != nil {
			return nil, err
		}
		l = append(l, p)
	}
	return l, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return p, fmt.Errorf("%q is not a prefix: use for example 10.0.0.0/8 or 2001:db8::/32", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, fmt.Errorf("%q covers more than the IPv4 addresses: write it as an IPv4 prefix", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// Allows reports whether an address may talk to this member. The mapped form
// of an IPv4 address counts as the IPv4 address.
func (l AllowList) Allows(a netip.Addr) bool {
	if len(l) == 0 {
		return true
	}
	a = a.Unmap().WithZone("")
	for _, p := range l {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// addrPortOf returns the address of a socket's far end, the zero value where
// there is none.
func addrPortOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	case interface{ AddrPort() netip.AddrPort }:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
