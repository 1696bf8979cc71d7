package transport

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// A hello is the first message of either side on every stream, the dialing
// side's first. All numbers are big-endian:
//
//	length of what follows   2 bytes
//	version                  1
//	kind                     1   memberlist's stream or a frame stream
//	status                   1   0, or why the accepting side refuses
//	tag of the label         4
//	nonce of the process     8
//	member id                1 + n
//	proofs                   1 + n × (4 + 32)
//
// A proof is an HMAC under a key derived from a ring key over the TLS exporter
// (RFC 8446 7.5) and everything else in the hello, with the role first, so
// that neither a hello of another connection nor our own sent back verifies.
const (
	helloVersion = 1
	proofSize    = sha256.Size
	maxMemberID  = 64
	maxHello     = 5 + labelTagSize + 8 + maxMemberID + 1 + MaxKeys*(len(KeyID{})+proofSize)

	exporterLabel = "EXPORTER-fluid-mesh-1"
	exporterSize  = 32
)

// kind says what a stream carries.
type kind uint8

const (
	kindMemberlist kind = 1 // one exchange of memberlist
	kindFrames     kind = 2 // frames until closed
)

// status is what the accepting side answers.
type status uint8

const (
	statusOK        status = 0
	statusDuplicate status = 1 // a stream between the two is already there
	statusLimit     status = 2 // too many streams
	statusClosed    status = 3 // no frame streams are served
)

// role separates the two sides of a stream in the proofs.
type role byte

const (
	roleDialer   role = 'd'
	roleAcceptor role = 'a'
)

// proof shows that its sender holds a ring key.
type proof struct {
	key KeyID
	mac [proofSize]byte
}

type hello struct {
	kind   kind
	status status
	label  labelTag
	nonce  [8]byte
	member MemberID
	proofs []proof
}

var errHello = errors.New("malformed hello")

// appendBody appends the hello without length and proofs: what is signed.
func (h *hello) appendBody(dst []byte) []byte {
	dst = append(dst, helloVersion, byte(h.kind), byte(h.status))
	dst = append(dst, h.label[:]...)
	dst = append(dst, h.nonce[:]...)
	dst = append(dst, byte(len(h.member)))
	return append(dst, h.member...)
}

// append appends the hello with its length.
func (h *hello) append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0)
	dst = h.appendBody(dst)
	dst = appendProofs(dst, h.proofs)
	binary.BigEndian.PutUint16(dst[start:], uint16(len(dst)-start-2))
	return dst
}

func appendProofs(dst []byte, proofs []proof) []byte {
	dst = append(dst, byte(len(proofs)))
	for _, p := range proofs {
		dst = append(dst, p.key[:]...)
		dst = append(dst, p.mac[:]...)
	}
	return dst
}

// decodeHello reads a hello without its length. It keeps nothing of b.
func decodeHello(b []byte) (hello, error) {
	var h hello
	const fixed = 3 + labelTagSize + 8 + 1
	if len(b) < fixed {
		return h, errHello
	}
	if b[0] != helloVersion {
		return h, fmt.Errorf("hello has version %d, this member speaks %d", b[0], helloVersion)
	}
	h.kind, h.status = kind(b[1]), status(b[2])
	if h.kind != kindMemberlist && h.kind != kindFrames {
		return h, errHello
	}
	copy(h.label[:], b[3:])
	copy(h.nonce[:], b[3+labelTagSize:])
	n := int(b[fixed-1])
	if n == 0 || n > maxMemberID || len(b) < fixed+n {
		return h, errHello
	}
	h.member = MemberID(b[fixed : fixed+n])
	var err error
	h.proofs, err = decodeProofs(b[fixed+n:])
	return h, err
}

func decodeProofs(b []byte) ([]proof, error) {
	const size = len(KeyID{}) + proofSize
	if len(b) == 0 || int(b[0]) > MaxKeys || len(b) != 1+int(b[0])*size {
		return nil, errHello
	}
	proofs := make([]proof, b[0])
	for i := range proofs {
		p := b[1+i*size:]
		proofs[i].key = KeyID(p)
		proofs[i].mac = [proofSize]byte(p[len(KeyID{}):])
	}
	return proofs, nil
}

// transcript is what one side proves: its role, the connection, the cluster
// and its hello.
func transcript(r role, exporter []byte, label string, h *hello) []byte {
	t := append([]byte("fluid-mesh/1 proof"), byte(r))
	t = append(t, exporter...)
	t = append(t, byte(len(label)))
	t = append(t, label...)
	return h.appendBody(t)
}

// prove returns a proof for each key of a ring.
func prove(keys []Key, transcript []byte) []proof {
	proofs := make([]proof, len(keys))
	for i, k := range keys {
		proofs[i] = proof{key: k.id, mac: proofMAC(k, transcript)}
	}
	return proofs
}

// verify checks the proofs whose key is in the ring. It returns ReasonNone if
// at least one is right and none is wrong.
func verify(keys []Key, proofs []proof, transcript []byte) Reason {
	if len(proofs) == 0 {
		return ReasonNoKey
	}
	result := ReasonWrongKey
	for _, p := range proofs {
		k, ok := findKey(keys, p.key)
		if !ok {
			continue
		}
		want := proofMAC(k, transcript)
		if !hmac.Equal(want[:], p.mac[:]) {
			return ReasonForged
		}
		result = ReasonNone
	}
	return result
}

func proofMAC(k Key, transcript []byte) (out [proofSize]byte) {
	mac := hmac.New(sha256.New, k.derive(nil, "fluid stream proof", sha256.Size))
	mac.Write(transcript)
	mac.Sum(out[:0])
	return out
}
