package raftnet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/fluid-sd/fluid/agent/pki"
)

var (
	errTooMany = errors.New("too many connections wait in their handshake")
	errWrong   = errors.New("connection refused")
)

// listen accepts until the layer is closed. A failure, such as too many open
// files, delays it and does not end it.
func (l *Layer) listen() {
	const minDelay, maxDelay = 5 * time.Millisecond, time.Second
	delay := minDelay
	for {
		raw, err := l.cfg.Listener.Accept()
		if err != nil {
			if l.ctx.Err() != nil {
				return
			}
			l.note("cannot accept connections of Raft", nil, err)
			select {
			case <-l.ctx.Done():
				return
			case <-time.After(delay):
				delay = min(2*delay, maxDelay)
			}
			continue
		}
		delay = minDelay
		if !l.enter(raw) {
			_ = raw.Close()
			l.refuse(raw, errTooMany)
			continue
		}
		l.loops.Go(func() {
			defer l.leave(raw)
			l.receive(raw)
		})
	}
}

// receive shakes hands with whoever connected and passes a server on.
func (l *Layer) receive(raw net.Conn) {
	c, ok := l.track(raw)
	if !ok {
		return
	}
	defer func() {
		if p := recover(); p != nil { // the bytes come from outside
			_ = c.Close()
			l.refuse(raw, fmt.Errorf("panic: %v", p))
		}
	}()
	if err := l.admit(c); err != nil {
		_ = c.Close()
		if l.ctx.Err() == nil {
			l.refuse(raw, err)
		}
		return
	}
	select {
	case l.ready <- c:
		l.accepted.Add(1)
	case <-l.ctx.Done():
		_ = c.Close()
	}
}

// admit returns nil once the other end has shown that it is a server and wants
// this one.
func (l *Layer) admit(c *conn) error {
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := c.raw.SetDeadline(deadline); err != nil {
		return err
	}
	var secure *tls.Conn
	if l.cfg.TLS != nil {
		secure = tls.Server(c.raw, l.cfg.TLS.ServerConfig(protocol))
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		c.Conn = secure
	}
	p, err := readPreamble(c)
	if err != nil {
		return err
	}
	a := answer{Verdict: l.judge(p, secure), Cluster: l.cfg.Cluster(), ID: l.cfg.Self.ID}
	b, err := a.append(nil)
	if err == nil {
		_, err = c.Write(b)
	}
	if err != nil {
		return err
	}
	if a.Verdict != accepted {
		return fmt.Errorf("%w: %s", errWrong, l.reason(a.Verdict, p))
	}
	return c.raw.SetDeadline(time.Time{})
}

// judge decides on a preamble. The certificate comes first, so that only
// servers learn who listens here.
func (l *Layer) judge(p preamble, secure *tls.Conn) verdict {
	if secure != nil {
		from := pki.Identity{ID: p.From, Name: p.Name}
		if from.Check(secure.ConnectionState().PeerCertificates[0]) != nil {
			return unproven
		}
	}
	if mine := l.cfg.Cluster(); mine != "" && p.Cluster != "" && p.Cluster != mine {
		return otherCluster
	}
	if p.To != l.cfg.Self.ID {
		return otherServer
	}
	return accepted
}

func (l *Layer) reason(v verdict, p preamble) string {
	switch v {
	case otherCluster:
		return fmt.Sprintf("server %q is of cluster %q, this one of %q", p.From, p.Cluster, l.cfg.Cluster())
	case otherServer:
		return fmt.Sprintf("server %q wants server %q, this one is %q", p.From, p.To, l.cfg.Self.ID)
	}
	return fmt.Sprintf("its certificate is neither of server id %q nor of name %q", p.From, p.Name)
}

// enter counts a connection that begins its handshake; false if there is no
// room. One host cannot take the room of the others.
func (l *Layer) enter(c net.Conn) bool {
	ip := host(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting >= maxPending || l.pending[ip] >= maxPendingPerIP {
		return false
	}
	l.pending[ip]++
	l.waiting++
	return true
}

func (l *Layer) leave(c net.Conn) {
	ip := host(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
	if l.pending[ip]--; l.pending[ip] == 0 {
		delete(l.pending, ip)
	}
}

// host returns the address of the other end, zero where it has none.
func host(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

func (l *Layer) refuse(c net.Conn, err error) {
	l.refused.Add(1)
	l.note("refused a connection to Raft", c, err)
}

// note logs, at most once a second.
func (l *Layer) note(msg string, c net.Conn, err error) {
	skipped, ok := l.quiet.pass(time.Now())
	if !ok {
		return
	}
	attrs := []slog.Attr{slog.Any("error", err)}
	if c != nil {
		attrs = append(attrs, slog.String("from", c.RemoteAddr().String()))
	}
	if skipped > 0 {
		attrs = append(attrs, slog.Int("more", skipped))
	}
	l.cfg.Log.LogAttrs(l.ctx, slog.LevelWarn, msg, attrs...)
}
