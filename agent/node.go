package agent

import (
	"net"
	"net/netip"
	"net/url"
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

// node describes this node to the others: its name in DNS, where it is, and
// the DNS servers at the socket.
func (a *Agent) node() record.Node {
	n := record.Node{
		ID: a.meshID(), Name: a.cfg.NodeName(), Addrs: a.nodeAddrs(), Zone: a.cfg.Zone, Version: record.Version, HTTP: a.httpURL, Created: a.origin.created,
	}
	members, _ := a.feed.Members()
	for _, m := range members {
		if m.Connected {
			n.Members = append(n.Members, m.ID)
		}
	}
	slices.Sort(n.Members)
	return n
}

// nodeAddrs returns the addresses at which others reach this agent: those that
// its parts advertise. Loopback counts only where there is nothing else.
func (a *Agent) nodeAddrs() []netip.Addr {
	told := []string{a.cfg.Gossip.Advertise, a.cfg.Gossip.Bind, a.raftAddr}
	if u, err := url.Parse(a.httpURL); err == nil {
		told = append(told, u.Host)
	}
	if p := a.mesh.Load(); p != nil {
		told = append(told, (*p).Self().Addr)
	}
	var out, loopback []netip.Addr
	for _, t := range told {
		host, _, err := net.SplitHostPort(t)
		if err != nil {
			host = t
		}
		addr, err := netip.ParseAddr(host)
		if addr = addr.Unmap(); err != nil || record.ValidateAddr("node", addr) != nil { // a name, or every address
			continue
		}
		if addr.IsLoopback() {
			loopback = append(loopback, addr)
		} else {
			out = append(out, addr)
		}
	}
	if len(out) == 0 {
		out = loopback
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
