package mesh

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/fluid-sd/fluid/plugin/mesh/transport"
)

// ring makes a key ring of raw keys; nil without any.
func ring(keys [][]byte) (*transport.Keyring, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	parsed, err := parseKeys(keys)
	if err != nil {
		return nil, err
	}
	return transport.NewKeyring(parsed...)
}

func parseKeys(keys [][]byte) ([]transport.Key, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: the ring would be empty; encryption cannot be switched off while running", ErrKey)
	}
	out := make([]transport.Key, len(keys))
	for i, k := range keys {
		var err error
		if out[i], err = transport.NewKey(k); err != nil {
			return nil, fmt.Errorf("%w %d: %w", ErrKey, i, err)
		}
	}
	return out, nil
}

// address reads HOST:PORT, where HOST is an IP address, "localhost", or empty
// for every address.
func address(field, s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("mesh: %s %q: use HOST:PORT", field, s)
	}
	switch host {
	case "localhost":
		host = "127.0.0.1"
	case "":
		host = "::"
	}
	ip, err := netip.ParseAddr(host)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil {
		return netip.AddrPort{}, fmt.Errorf("mesh: %s %q: use an IP address and a port", field, s)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}

// listen opens the member's network.
func (g *gossip) listen() (err error) {
	cfg := transport.Config{
		ID: transport.MemberID(g.cfg.ID), Label: g.cfg.Label, Insecure: g.cfg.Insecure,
		Allow: g.cfg.Allow, Network: g.cfg.Network, Logger: g.cfg.Logger,
	}
	if cfg.Bind, err = address("bind", g.cfg.Bind); err != nil {
		return err
	}
	if g.cfg.Advertise != "" {
		if cfg.Advertise, err = address("advertise", g.cfg.Advertise); err != nil {
			return err
		}
	}
	if g.ring, err = ring(g.cfg.Keys); err != nil {
		return err
	}
	cfg.Keyring = g.ring
	if g.net, err = transport.New(cfg); err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	g.streams, err = g.net.NewStreams(transport.StreamsConfig{
		Resolve: g.resolve, Handler: g.receive, Compress: g.cfg.Compression,
	})
	return err
}

// resolve returns where a member is reached.
func (g *gossip) resolve(id transport.MemberID) (netip.AddrPort, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, err := netip.ParseAddrPort(g.known[string(id)].Addr)
	return at, err == nil
}

// transmit hands frames to the streams. Sends of one body follow each other, so
// that it is compressed once.
func (g *gossip) transmit(out []send) {
	for len(out) > 0 {
		n := together(out)
		first := out[0]
		if len(first.body) > 0 { // there is no frame without a kind
			to := make([]transport.MemberID, n)
			for i := range to {
				to[i] = transport.MemberID(out[i].to)
			}
			g.streams.SendAll(to, first.body, priorities[first.urg])
		}
		out = out[n:]
	}
}

// together returns how many sends, from the first on, are of one body.
func together(out []send) int {
	n := 1
	for n < len(out) && out[n].urg == out[0].urg && len(out[n].body) == len(out[0].body) &&
		(len(out[0].body) == 0 || &out[n].body[0] == &out[0].body[0]) {
		n++
	}
	return n
}

var priorities = [...]transport.Priority{
	urgentControl: transport.Control, urgentData: transport.Data, urgentEager: transport.Eager,
}
