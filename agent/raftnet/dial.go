package raftnet

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/agent/pki"
)

// ServerAddr implements raft.ServerAddressProvider: the address of a server as
// Dial takes it, ID@HOST:PORT, or ID@ for one that is not in the configuration.
// It returns no error, because Raft would then use the bare address. Its own
// address is bare, for Raft tells it to the others.
func (l *Layer) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if string(id) == l.cfg.Self.ID {
		return l.advertise, nil
	}
	r, _ := l.cfg.Resolve(id)
	return raft.ServerAddress(string(id) + "@" + r.Addr), nil
}

// Dial implements raft.StreamLayer for addresses of ServerAddr. It returns a
// connection to that very server, or an error.
func (l *Layer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	peer, hostport := l.cfg.Self, string(addr)
	if addr != l.advertise {
		id, hp, _ := strings.Cut(string(addr), "@")
		r, ok := l.cfg.Resolve(raft.ServerID(id))
		if !ok || hp == "" {
			return nil, fmt.Errorf("%w: %s", ErrUnknownServer, addr)
		}
		peer, hostport = pki.Identity{ID: id, Name: r.Name}, hp
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	return l.connect(ctx, hostport, peer)
}

// Probe connects to the server peer at addr and closes the connection again:
// nil says that peer listens there, is of this cluster or of none yet, and that
// both have proven who they are. It is how a leader calls a server back that
// asks to join.
func (l *Layer) Probe(ctx context.Context, addr string, peer pki.Identity) error {
	c, err := l.connect(ctx, addr, peer)
	if err != nil {
		return err
	}
	return c.Close()
}

// connect does the dialer's part of the handshake, in at most handshakeTimeout
// after the TCP connection is there.
func (l *Layer) connect(ctx context.Context, addr string, peer pki.Identity) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)() // Close ends a dial that waits
	raw, err := l.cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c, ok := l.track(raw)
	if !ok {
		return nil, net.ErrClosed
	}
	if err := l.introduce(ctx, c, addr, peer); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("server %s: %w", peer, err)
	}
	return c, nil
}

func (l *Layer) introduce(ctx context.Context, c *conn, addr string, peer pki.Identity) error {
	deadline := time.Now().Add(handshakeTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := c.raw.SetDeadline(deadline); err != nil {
		return err
	}
	// A canceled ctx ends the reads below.
	stop := context.AfterFunc(ctx, func() { _ = c.raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if l.cfg.TLS != nil {
		secure := tls.Client(c.raw, l.cfg.TLS.ClientConfig(peer, protocol))
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		c.Conn = secure
	}
	p := preamble{Cluster: l.cfg.Cluster(), To: peer.ID, From: l.cfg.Self.ID, Name: l.cfg.Self.Name}
	b, err := p.append(nil)
	if err != nil {
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	a, err := readAnswer(c)
	if err != nil {
		return fmt.Errorf("handshake with %s: %w", addr, err)
	}
	if err := a.err(addr, p); err != nil {
		return err
	}
	if !stop() {
		return ctx.Err()
	}
	return c.raw.SetDeadline(time.Time{})
}
