package transport

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// stream is one open stream to a peer: a goroutine that reads and one that
// writes what the peer's queue holds, as long as the peer points to it.
type stream struct {
	*session
	owner  *Streams
	opened time.Time
	wake   chan struct{} // has one place: frames wait
	frames atomic.Int64  // when the last frame came or went, Unix nanoseconds

	stopped chan struct{} // closed by stop
	mu      sync.Mutex    // guards what follows, and the deadlines of the connection
	reason  Reason        // ReasonNone until stopped
	offers  []proof       // what the peer proved last
	lapsed  time.Time     // since when none of offers is in the ring
	bye     Reason        // why the peer closed, ReasonNone if it did not say
}

func newStream(s *session, owner *Streams) *stream {
	st := &stream{
		session: s, owner: owner, opened: time.Now(),
		wake: make(chan struct{}, 1), stopped: make(chan struct{}), offers: s.remote.proofs,
	}
	st.frames.Store(st.opened.UnixNano())
	return st
}

// notify tells the writer that frames wait.
func (st *stream) notify() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// stop ends the stream: the writer says why and closes its direction, the
// reader takes what is still on the way. That takes the linger time at most,
// or, for a stream that another one replaces, as long as a write may. Only the
// first reason counts.
func (st *stream) stop(r Reason) {
	st.mu.Lock()
	defer st.mu.Unlock()
	end := linger
	if st.reason == ReasonNone {
		st.reason = r
		close(st.stopped)
		if r == ReasonDuplicate || r == ReasonReplaced || st.bye == ReasonDuplicate || st.bye == ReasonReplaced {
			end = st.owner.cfg.WriteTimeout
		}
	} else if r != ReasonClosed {
		return
	}
	st.SetDeadline(time.Now().Add(end)) // a closed connection needs none
}

// extend sets a deadline for the next read or write unless the stream was
// stopped, which has set the last one.
func (st *stream) extend(set func(time.Time) error, d time.Duration) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.reason == ReasonNone {
		set(time.Now().Add(d)) // the read or write will tell
	}
}

// Read reads with the idle deadline, for the reader's buffer.
func (st *stream) Read(b []byte) (int, error) {
	st.extend(st.SetReadDeadline, st.owner.cfg.ReadTimeout)
	return st.Conn.Read(b)
}

// Write writes with the write deadline, for the writer's buffer.
func (st *stream) Write(b []byte) (int, error) {
	st.extend(st.SetWriteDeadline, st.owner.cfg.WriteTimeout)
	return st.Conn.Write(b)
}

// run serves the stream until it has ended in both directions.
func (st *stream) run() {
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := st.write(); err != nil {
			st.stop(endReason(err))
		}
	})
	err := st.read()
	st.stop(endReason(err))
	writer.Wait()
	st.Close()
	st.owner.ended(st, err)
}

// endReason returns the reason for which an error ends a stream.
func endReason(err error) Reason {
	var r *refused
	switch {
	case errors.As(err, &r):
		return r.reason
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ReasonTimeout
	default:
		return ReasonRemote
	}
}

// read hands frames to the handler until the stream ends; nil means that the
// peer said so.
func (st *stream) read() (err error) {
	defer contain(st.owner.log, &err)
	s := st.owner
	r := bufio.NewReaderSize(st, 16<<10)
	for {
		m, payload, err := readMessage(r)
		if err == nil {
			switch m {
			case messageFrame:
				st.deliver(payload, len(payload))
			case messageGzip:
				var frame []byte
				if frame, err = gunzip(payload); err == nil {
					st.deliver(frame, len(payload))
				}
			case messageProof:
				err = st.reprove(payload)
			case messageBye:
				if len(payload) != 1 {
					return s.violation(st, refuse(ReasonMalformed, "bye of %d bytes", len(payload)))
				}
				st.mu.Lock()
				st.bye = Reason(payload[0])
				st.mu.Unlock()
				s.log.Debug("stream closed by peer", "peer", st.remote.member, "reason", st.bye)
				return nil
			}
		}
		if err != nil {
			return s.violation(st, err)
		}
	}
}

// deliver calls the handler, and survives its panic.
func (st *stream) deliver(frame []byte, wire int) {
	s := st.owner
	defer func() {
		if p := recover(); p != nil {
			s.count.streamDrops.add(ReasonPanic)
			s.log.Error("frame handler panicked", "peer", st.remote.member, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	s.count.framesIn.Add(1)
	s.count.frameBytesIn.Add(uint64(wire))
	st.frames.Store(time.Now().UnixNano())
	s.cfg.Handler(st.remote.member, frame)
}

// reprove takes the keys the peer holds now.
func (st *stream) reprove(payload []byte) error {
	proofs, err := decodeProofs(payload)
	if err != nil {
		return refuse(ReasonMalformed, "%w", err)
	}
	switch r := verifyMode(st.owner.t.cfg.Keyring, proofs, st.theirs); r {
	case ReasonNone, ReasonWrongKey: // the latter may be a key that this ring is about to get
	default:
		return refuse(r, "proofs of %q do not verify", st.remote.member)
	}
	st.mu.Lock()
	st.offers = proofs
	st.mu.Unlock()
	return nil
}

// proven reports whether the peer has proved a key of the ring as it is now,
// or had the grace time to do so.
func (st *stream) proven(now time.Time) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if verifyMode(st.owner.t.cfg.Keyring, st.offers, st.theirs) == ReasonNone {
		st.lapsed = time.Time{}
		return true
	}
	if st.lapsed.IsZero() {
		st.lapsed = now
	}
	return now.Sub(st.lapsed) < keyGrace
}

// write sends what waits for the peer, keeps the stream alive and proves new
// keys, until the stream is stopped; then it says why.
func (st *stream) write() error {
	s := st.owner
	w := bufio.NewWriterSize(st, 32<<10)
	ring := s.t.cfg.Keyring
	var changed <-chan struct{} // never, without a ring
	if ring != nil {
		changed = ring.Changed()
		// The ring may have changed since the hello.
		if err := st.writeProofs(w); err != nil {
			return err
		}
	}
	timer := time.NewTimer(s.cfg.KeepAlive)
	defer timer.Stop()
	last := time.Now()
	for {
		sent, err := st.drain(w)
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			return err
		}
		if sent {
			last = time.Now()
		}
		select {
		case <-st.wake:
		case <-st.stopped:
			return st.writeBye(w)
		case <-changed:
			changed = ring.Changed()
			if err := st.writeProofs(w); err != nil {
				return err
			}
			if st.proven(time.Now()); st.hasLapsed() {
				timer.Reset(keyGrace)
			}
		case now := <-timer.C:
			if err := st.tick(w, now, &last); err != nil {
				return err
			}
			timer.Reset(s.cfg.KeepAlive)
		}
	}
}

// drain writes frames until none waits.
func (st *stream) drain(w *bufio.Writer) (sent bool, err error) {
	s := st.owner
	for {
		select {
		case <-st.stopped:
			return sent, nil
		default:
		}
		f := s.next(st)
		if f == nil {
			return sent, nil
		}
		m, payload := f.message(s.cfg.Compress)
		if err := writeMessage(w, m, payload); err != nil {
			s.count.frameDrops.add(endReason(err))
			return sent, err
		}
		sent = true
		s.count.framesOut.Add(1)
		s.count.frameBytesOut.Add(uint64(len(payload)))
		st.frames.Store(time.Now().UnixNano())
	}
}

// tick does what is due now and then.
func (st *stream) tick(w *bufio.Writer, now time.Time, last *time.Time) error {
	s := st.owner
	if now.Sub(time.Unix(0, st.frames.Load())) >= s.cfg.IdleTimeout {
		st.stop(ReasonIdle)
		return nil
	}
	if !st.proven(now) {
		st.stop(ReasonKeyRemoved)
		return nil
	}
	if now.Sub(*last) >= s.cfg.KeepAlive/2 {
		*last = now
		return writeMessage(w, messagePing, nil)
	}
	return nil
}

func (st *stream) hasLapsed() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return !st.lapsed.IsZero()
}

func (st *stream) writeProofs(w *bufio.Writer) error {
	return writeMessage(w, messageProof, appendProofs(nil, prove(st.owner.t.keys(), st.local)))
}

// writeBye says why the stream ends and closes the writing direction.
func (st *stream) writeBye(w *bufio.Writer) error {
	st.mu.Lock()
	r := st.reason
	st.mu.Unlock()
	if err := writeMessage(w, messageBye, []byte{byte(r)}); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return st.CloseWrite()
}

func writeMessage(w *bufio.Writer, m messageType, payload []byte) error {
	if _, err := w.Write(appendHeader(w.AvailableBuffer(), m, len(payload))); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

// closedNormally reports whether an error is how streams end without anybody
// being at fault.
func closedNormally(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)
}
