package transport

import (
	"context"
	"math/rand/v2"
	"time"
)

// duplicateTries is how often a dial that was answered with "there is a stream
// already" is tried again while that stream does not show up here.
const duplicateTries = 8

// dial begins to open a stream, after a delay. The caller holds mu.
func (s *Streams) dial(p *peer, delay time.Duration) {
	p.dialing = true
	s.dials++
	s.done.Go(func() {
		if delay == 0 || (s.pause(delay) && !s.hasStream(p)) {
			s.runDial(p)
		} else {
			s.dialed(p, ReasonUnreachable)
		}
	})
}

// runDial opens a stream to a peer or drops what waits for it.
func (s *Streams) runDial(p *peer) {
	reason := ReasonUnreachable
	for try := 0; ; try++ {
		sess, err := s.dialOnce(p.id)
		if err == nil {
			s.install(sess, true)
			return
		}
		s.log.Debug("dial", "peer", p.id, "error", err)
		reason = reasonOf(err)
		if reason != ReasonDuplicate || try == duplicateTries || s.hasStream(p) || !s.pause(jitter(s.cfg.BackoffMin)) {
			break
		}
	}
	s.dialed(p, reason)
}

// dialed ends a dial that opened no stream.
func (s *Streams) dialed(p *peer, reason Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials--
	p.dialing = false
	if p.stream != nil {
		p.stream.notify()
		return
	}
	s.count.streamDrops.add(reason)
	s.backOff(p)
	s.shed(p, ReasonUnreachable)
}

func (s *Streams) dialOnce(id MemberID) (*session, error) {
	addr, ok := s.cfg.Resolve(id)
	if !ok {
		return nil, refuse(ReasonUnreachable, "no address is known for member %q", id)
	}
	return s.t.open(s.ctx, addr, kindFrames, id)
}

func (s *Streams) hasStream(p *peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.stream != nil
}

// pause waits, and reports false if Streams was closed meanwhile.
func (s *Streams) pause(d time.Duration) bool {
	ctx, cancel := context.WithTimeout(s.ctx, d)
	defer cancel()
	<-ctx.Done()
	return s.ctx.Err() == nil
}

// backOff puts the next dial off. The caller holds mu.
func (s *Streams) backOff(p *peer) {
	d := s.cfg.BackoffMax
	if p.failures < 16 {
		d = min(d, s.cfg.BackoffMin<<p.failures)
	}
	p.failures++
	p.retry = time.Now().Add(jitter(d))
}

// jitter returns a time between half of d and d.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1)
}

// accept takes a verified stream of a dialer.
func (s *Streams) accept(sess *session) error {
	switch st := s.judge(sess); st {
	case statusOK:
	case statusDuplicate:
		return s.t.decline(sess, st, ReasonDuplicate)
	case statusLimit:
		return s.t.decline(sess, st, ReasonLimit)
	default:
		return s.t.decline(sess, st, ReasonClosed)
	}
	if err := s.t.answer(sess, statusOK); err != nil {
		return err
	}
	s.install(sess, false)
	return nil
}

// judge decides whether a stream is taken, before the dialer is answered.
func (s *Streams) judge(sess *session) status {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch p := s.peers[sess.remote.member]; {
	case s.closed:
		return statusClosed
	case sess.remote.member == s.t.cfg.ID:
		return statusClosed // another process under our id: memberlist tells of the conflict
	case p != nil && p.stream != nil && !s.wins(sess, p.stream):
		return statusDuplicate
	case len(s.open) >= s.cfg.MaxStreams && (p == nil || p.stream == nil):
		return statusLimit
	}
	return statusOK
}

// wins reports whether a new stream to a peer replaces the one there is.
//
// When both sides dial at once, both see the same two streams and keep the one
// that the smaller id dialed. That is possible only while a dial that began
// before the old stream opened can still arrive; later, or if the peer is
// another process than before, a dial means that the peer has lost the old
// stream, even if this side has not noticed.
func (s *Streams) wins(fresh *session, old *stream) bool {
	if fresh.remote.nonce != old.remote.nonce || fresh.dialed == old.dialed ||
		time.Since(old.opened) > s.t.cfg.HandshakeTimeout {
		return true
	}
	return fresh.dialed == (s.t.cfg.ID < fresh.remote.member)
}

// install makes a stream the one its peer's queue goes to, unless a better one
// is there, and serves it either way until it ends.
func (s *Streams) install(sess *session, dialed bool) {
	st := newStream(sess, s)
	s.mu.Lock()
	p := s.peer(sess.remote.member)
	if dialed {
		s.dials--
		p.dialing = false
	}
	if s.closed {
		s.mu.Unlock()
		sess.Close()
		return
	}
	old := p.stream
	wins := old == nil || s.wins(sess, old)
	if wins {
		p.stream = st
	}
	s.open[st] = struct{}{}
	s.done.Go(func() {
		if old == nil && s.cfg.Up != nil {
			s.cfg.Up(sess.remote.member)
		}
		st.run()
	})
	s.mu.Unlock()
	switch {
	case !wins:
		st.stop(ReasonDuplicate)
	case old != nil && old.dialed != dialed:
		old.stop(ReasonDuplicate)
	case old != nil:
		old.stop(ReasonReplaced)
	}
}

// ended accounts for a stream that is closed, and opens another one if frames
// wait.
func (s *Streams) ended(st *stream, err error) {
	st.mu.Lock()
	reason, bye := st.reason, st.bye
	st.mu.Unlock()
	s.count.closes.add(reason)
	s.mu.Lock()
	delete(s.open, st)
	p := s.peers[st.remote.member]
	last := p != nil && p.stream == st
	if last {
		p.stream = nil
		if time.Since(st.opened) > s.cfg.BackoffMax {
			p.failures = 0
		} else if !closedNormally(err) {
			s.backOff(p) // a stream that breaks at once is as good as none
		}
		var delay time.Duration
		if bye == ReasonDuplicate || bye == ReasonReplaced {
			// The peer has another stream to us, which is about to arrive. One
			// more dial would replace it, and so on.
			delay = s.t.cfg.HandshakeTimeout / 4
		}
		s.redial(p, delay)
	}
	s.mu.Unlock()
	if last && s.cfg.Down != nil {
		s.cfg.Down(st.remote.member, reason)
	}
}

// redial opens a stream for frames that were queued while the last one ended.
// The caller holds mu.
func (s *Streams) redial(p *peer, delay time.Duration) {
	switch {
	case p.queue.len() == 0 || p.dialing:
	case s.closed:
		s.shed(p, ReasonClosed)
	case time.Now().Before(p.retry):
		s.shed(p, ReasonUnreachable)
	default:
		s.dial(p, delay)
	}
}
