package transport

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"
)

const alpn = "fluid-mesh/1"

// ErrSelf is returned by a dial that reached the member that dialed.
var ErrSelf = errors.New("the address is this member itself")

// refused is why a stream was not opened.
type refused struct {
	reason Reason
	err    error
}

func (e *refused) Error() string { return e.err.Error() }
func (e *refused) Unwrap() error { return e.err }

func refuse(r Reason, format string, args ...any) error {
	return &refused{reason: r, err: fmt.Errorf(format, args...)}
}

// reasonOf returns the reason in an error of the handshake.
func reasonOf(err error) Reason {
	if r, ok := errors.AsType[*refused](err); ok {
		return r.reason
	}
	return ReasonHandshake
}

// newTLSConfig makes the configuration both sides use, with a key pair that
// lives as long as the Transport. The certificates identify nobody: who is at
// the far end is decided by the proofs over the exporter, which a man in the
// middle with two connections cannot make.
func newTLSConfig() (*tls.Config, error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "fluid"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Unix(1<<35, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, priv)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: priv}},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpn},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // see above
		SessionTicketsDisabled: true, // each stream is proved on its own
	}, nil
}

// session is a stream of which the far end is known.
type session struct {
	*tls.Conn
	dialed   bool
	remote   hello
	exporter []byte
	// The transcripts of both sides, kept to prove keys that come later.
	local, theirs []byte
}

// dialHandshake runs the dialing side on conn and closes it on an error. want
// may be empty: then any member is accepted.
func (t *Transport) dialHandshake(conn net.Conn, k kind, want MemberID, deadline time.Time) (*session, error) {
	s := &session{Conn: tls.Client(conn, t.tls), dialed: true}
	if err := t.runDial(s, k, want, deadline); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (t *Transport) runDial(s *session, k kind, want MemberID, deadline time.Time) (err error) {
	defer contain(t.log, &err)
	if err := s.begin(t.ctx, deadline); err != nil {
		return err
	}
	mine := t.hello(k)
	s.local = transcript(roleDialer, s.exporter, t.cfg.Label, &mine)
	mine.proofs = prove(t.keys(), s.local)
	if _, err := s.Write(mine.append(nil)); err != nil {
		return refuse(ReasonHandshake, "send hello: %w", err)
	}
	if err := s.readHello(); err != nil {
		// The acceptor says nothing to a side that proved nothing.
		return fmt.Errorf("no answer to the hello (another key, label or cluster?): %w", err)
	}
	if s.remote.nonce == t.nonce {
		return refuse(ReasonIdentity, "dial %s: %w", s.RemoteAddr(), ErrSelf)
	}
	s.theirs = transcript(roleAcceptor, s.exporter, t.cfg.Label, &s.remote)
	if err := t.check(s, k); err != nil {
		return err
	}
	if want != "" && s.remote.member != want {
		return refuse(ReasonIdentity, "member %q answers at %s, not %q", s.remote.member, s.RemoteAddr(), want)
	}
	switch s.remote.status {
	case statusOK:
		return s.SetDeadline(time.Time{})
	case statusDuplicate:
		return refuse(ReasonDuplicate, "member %q has a stream to this one already", s.remote.member)
	case statusLimit:
		return refuse(ReasonLimit, "member %q has too many streams", s.remote.member)
	default:
		return refuse(ReasonRemote, "member %q takes no streams (status %d)", s.remote.member, s.remote.status)
	}
}

// acceptHandshake runs the accepting side up to the hello of the dialer, which
// it has verified when it returns. The caller answers, and closes conn on an
// error.
func (t *Transport) acceptHandshake(conn net.Conn, deadline time.Time) (s *session, err error) {
	defer contain(t.log, &err)
	s = &session{Conn: tls.Server(conn, t.tls)}
	if err := s.begin(t.ctx, deadline); err != nil {
		return nil, err
	}
	if err := s.readHello(); err != nil {
		return nil, err
	}
	s.theirs = transcript(roleDialer, s.exporter, t.cfg.Label, &s.remote)
	if err := t.check(s, s.remote.kind); err != nil {
		return nil, err
	}
	return s, nil
}

// answer sends the hello of the accepting side.
func (t *Transport) answer(s *session, st status) error {
	mine := t.hello(s.remote.kind)
	mine.status = st
	s.local = transcript(roleAcceptor, s.exporter, t.cfg.Label, &mine)
	mine.proofs = prove(t.keys(), s.local)
	if _, err := s.Write(mine.append(nil)); err != nil {
		return refuse(ReasonHandshake, "send hello: %w", err)
	}
	return s.SetDeadline(time.Time{})
}

// begin runs the TLS handshake, which ends with ctx.
func (s *session) begin(ctx context.Context, deadline time.Time) error {
	if err := s.SetDeadline(deadline); err != nil {
		return refuse(ReasonHandshake, "set deadline: %w", err)
	}
	if err := s.HandshakeContext(ctx); err != nil {
		return refuse(ReasonHandshake, "tls: %w", err)
	}
	state := s.ConnectionState()
	var err error
	if s.exporter, err = state.ExportKeyingMaterial(exporterLabel, nil, exporterSize); err != nil {
		return refuse(ReasonHandshake, "tls exporter: %w", err)
	}
	return nil
}

func (s *session) readHello() error {
	var b [2 + maxHello]byte
	if _, err := io.ReadFull(s, b[:2]); err != nil {
		return refuse(ReasonHandshake, "read hello: %w", err)
	}
	n := int(binary.BigEndian.Uint16(b[:]))
	if n > maxHello {
		return refuse(ReasonMalformed, "hello has %d bytes, at most %d are allowed", n, maxHello)
	}
	if _, err := io.ReadFull(s, b[2:2+n]); err != nil {
		return refuse(ReasonHandshake, "read hello: %w", err)
	}
	var err error
	if s.remote, err = decodeHello(b[2 : 2+n]); err != nil {
		return refuse(ReasonMalformed, "%w", err)
	}
	return nil
}

// check verifies what the far end said of itself.
func (t *Transport) check(s *session, k kind) error {
	if s.remote.label != t.sealer.tag {
		return refuse(ReasonLabel, "%s is of another cluster: the labels differ", s.RemoteAddr())
	}
	if s.remote.kind != k {
		return refuse(ReasonMalformed, "%s answered for another kind of stream", s.RemoteAddr())
	}
	if reason := verifyMode(t.cfg.Keyring, s.remote.proofs, s.theirs); reason != ReasonNone {
		return refuse(reason, "%s proved no key of this ring (%s)", s.RemoteAddr(), reason)
	}
	return nil
}

// verifyMode verifies proofs, or, without a ring, that there are none: a
// member with keys and one without never talk.
func verifyMode(ring *Keyring, proofs []proof, transcript []byte) Reason {
	if ring == nil {
		if len(proofs) != 0 {
			return ReasonNoKey
		}
		return ReasonNone
	}
	return verify(ring.snapshot(), proofs, transcript)
}

func (t *Transport) hello(k kind) hello {
	return hello{kind: k, label: t.sealer.tag, nonce: t.nonce, member: t.cfg.ID}
}

// keys returns the ring as it is now, nothing without one.
func (t *Transport) keys() []Key {
	if t.cfg.Keyring == nil {
		return nil
	}
	return t.cfg.Keyring.snapshot()
}
