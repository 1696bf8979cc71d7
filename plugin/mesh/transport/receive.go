package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// retryDelay is how long the receiving loops wait after an error that is not
// the end of the socket, so that one which persists does not spin.
const retryDelay = 5 * time.Millisecond

// sealBuffers holds the buffers packets are sealed in. memberlist's packets are
// small; one that grew is not kept.
var sealBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// WriteTo implements memberlist.Transport.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	ap, err := parseAddr(a.Addr)
	if err != nil {
		return time.Time{}, err
	}
	if !t.cfg.Allow.Allows(ap.Addr()) {
		return time.Time{}, refuse(ReasonCIDR, "send to %s: the address is not in the allow list", ap)
	}
	if len(b)+PacketOverhead > maxPacket {
		return time.Time{}, refuse(ReasonOversize, "send to %s: a packet has %d bytes, at most %d are allowed", ap, len(b), maxPacket-PacketOverhead)
	}
	buf := sealBuffers.Get().(*[]byte)
	pkt := t.sealer.seal((*buf)[:0], b)
	n, err := t.packets.WriteToUDPAddrPort(pkt, ap)
	now := time.Now()
	if cap(pkt) <= 4096 {
		*buf = pkt
		sealBuffers.Put(buf)
	}
	if err != nil {
		return time.Time{}, err
	}
	t.count.packetsOut.Add(1)
	t.count.packetBytesOut.Add(uint64(n))
	return now, nil
}

// receivePackets reads into one buffer and hands on payloads of exactly their
// size: memberlist may keep them in its queue, so they cannot be reused, but
// they pin nothing either.
func (t *Transport) receivePackets() {
	buf := make([]byte, maxPacket+1)
	for {
		n, from, err := t.packets.ReadFromUDPAddrPort(buf)
		now := time.Now()
		if err != nil {
			if !t.again(err) {
				return
			}
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if !t.cfg.Allow.Allows(from.Addr()) {
			t.count.packetDrops.add(ReasonCIDR)
			continue
		}
		payload, reason := t.openPacket(buf[:n])
		if reason != ReasonNone {
			t.count.packetDrops.add(reason)
			t.log.Debug("packet dropped", "from", from, "reason", reason)
			continue
		}
		t.count.packetsIn.Add(1)
		t.count.packetBytesIn.Add(uint64(n))
		select {
		case t.packetCh <- &memberlist.Packet{Buf: payload, From: net.UDPAddrFromAddrPort(from), Timestamp: now}:
		case <-t.ctx.Done():
			return
		}
	}
}

// Inject hands memberlist a packet as if this member had sent it to itself. It
// blocks until memberlist takes it, or the transport is closed.
func (t *Transport) Inject(payload []byte) {
	select {
	case t.packetCh <- &memberlist.Packet{Buf: payload, From: net.UDPAddrFromAddrPort(t.Addr()), Timestamp: time.Now()}:
	case <-t.ctx.Done():
	}
}

func (t *Transport) openPacket(pkt []byte) (payload []byte, r Reason) {
	var err error
	defer func() {
		if err != nil {
			payload, r = nil, reasonOf(err)
		}
	}()
	defer contain(t.log, &err)
	if len(pkt) > maxPacket {
		return nil, ReasonOversize
	}
	return t.opener.open(pkt)
}

// again reports whether a receiving loop goes on after an error, having waited
// a little.
func (t *Transport) again(err error) bool {
	if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return false
	}
	t.log.Debug("receive", "error", err)
	timer := time.NewTimer(retryDelay)
	defer timer.Stop()
	select {
	case <-t.ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (t *Transport) acceptStreams() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			if !t.again(err) {
				return
			}
			continue
		}
		from := addrPortOf(conn.RemoteAddr()).Addr()
		if !t.cfg.Allow.Allows(from) {
			t.count.streamDrops.add(ReasonCIDR)
			conn.Close()
			continue
		}
		if !t.admission.enter(from) {
			t.count.streamDrops.add(ReasonLimit)
			conn.Close()
			continue
		}
		t.done.Go(func() { t.serveStream(conn, from) })
	}
}

// serveStream runs the handshake of an accepted connection and hands it to
// whom it is for.
func (t *Transport) serveStream(conn net.Conn, from netip.Addr) {
	stop := context.AfterFunc(t.ctx, func() { conn.Close() })
	s, err := t.acceptHandshake(conn, time.Now().Add(t.cfg.HandshakeTimeout))
	t.admission.leave(from)
	if err == nil {
		err = t.dispatch(s)
	}
	stop()
	if err != nil {
		conn.Close()
		// Of two streams between the same members one goes: nothing is lost.
		if c := &t.count; reasonOf(err) == ReasonDuplicate {
			c.closes.add(ReasonDuplicate)
		} else {
			c.streamDrops.add(reasonOf(err))
		}
		t.log.Debug("stream refused", "from", from, "reason", reasonOf(err), "error", err)
		return
	}
	t.count.accepts.Add(1)
}

// dispatch answers a verified dialer and passes the stream on.
func (t *Transport) dispatch(s *session) error {
	if s.remote.nonce == t.nonce {
		// Answer, so that the dialing side of us learns whom it reached.
		if err := t.answer(s, statusClosed); err != nil {
			return err
		}
		return refuse(ReasonIdentity, "accept from %s: %w", s.RemoteAddr(), ErrSelf)
	}
	if s.remote.kind == kindFrames {
		return t.dispatchFrames(s)
	}
	select {
	case t.exchanges <- struct{}{}:
	default:
		return t.decline(s, statusLimit, ReasonLimit)
	}
	conn := &exchange{session: s, release: sync.OnceFunc(func() { <-t.exchanges })}
	if err := t.answer(s, statusOK); err != nil {
		conn.release()
		return err
	}
	select {
	case t.streamCh <- conn:
		return nil
	case <-t.ctx.Done():
		conn.release()
		return refuse(ReasonClosed, "transport is closed: %w", net.ErrClosed)
	}
}

func (t *Transport) dispatchFrames(s *session) error {
	t.mu.Lock()
	streams := t.streams
	t.mu.Unlock()
	if streams == nil {
		return t.decline(s, statusClosed, ReasonClosed)
	}
	return streams.accept(s)
}

// decline tells a verified dialer why its stream is not taken.
func (t *Transport) decline(s *session, st status, r Reason) error {
	if err := t.answer(s, st); err != nil {
		return err
	}
	s.Close()
	return refuse(r, "stream of %q declined (%s)", s.remote.member, r)
}

// exchange is an accepted stream of memberlist, which counts until closed.
type exchange struct {
	*session
	release func()
}

// Close implements net.Conn.
func (e *exchange) Close() error {
	e.release()
	return e.session.Close()
}
