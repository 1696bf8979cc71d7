package mesh

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"time"
)

const (
	handshakeTimeout = 5 * time.Second
	writeTimeout     = 10 * time.Second
	compressFrom     = 256 // bytes of a frame below which gzip does not pay
	exporterLabel    = "EXPORTER-fluid-mesh-1"
	streamProto      = "fluid-mesh/1"
)

// errProof is returned for a stream whose other end does not hold a key of the
// ring, or is of another mesh.
var errProof = errors.New("mesh: peer proves no key of the ring")

// throwaway makes a certificate that nobody checks: TLS only encrypts. Who the
// other end is follows from the proof over the exporter, which a man in the
// middle, having two different exporters, cannot pass on.
func throwaway() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		InsecureSkipVerify:     true, // the proof over the exporter takes its place
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{streamProto},
		SessionTicketsDisabled: true,
	}, nil
}

// hello is what each end says first.
type hello struct {
	id  string
	key []byte // of the ring, that its proof was made with; nil without a ring
}

// prove runs the handshake of one end: TLS, then both proofs. ring is empty in
// a mesh without keys; both ends must agree on that. It returns who the other
// end says it is.
func prove(conn net.Conn, cfg *tls.Config, client bool, id, label string, ring [][]byte) (*tls.Conn, hello, error) {
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout))
	var tc *tls.Conn
	if client {
		tc = tls.Client(conn, cfg)
	} else {
		tc = tls.Server(conn, cfg)
	}
	if err := tc.Handshake(); err != nil {
		return nil, hello{}, err
	}
	state := tc.ConnectionState()
	exported, err := state.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return nil, hello{}, err
	}
	mine := append([]byte{byte(len(id))}, id...)
	var first []byte
	if len(ring) > 0 {
		first = ring[0]
	}
	mine = append(mine, proof(first, client, exported, label, id)...)
	if client {
		if _, err := tc.Write(mine); err != nil {
			return nil, hello{}, err
		}
	}
	peer, err := readHello(tc, !client, exported, label, ring)
	if err != nil {
		return nil, hello{}, err
	}
	if !client {
		if _, err := tc.Write(mine); err != nil {
			return nil, hello{}, err
		}
	}
	return tc, peer, conn.SetDeadline(time.Time{})
}

func readHello(r io.Reader, client bool, exported []byte, label string, ring [][]byte) (hello, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return hello{}, err
	}
	b := make([]byte, int(n[0])+sha256.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		return hello{}, err
	}
	id, mac := string(b[:n[0]]), b[n[0]:]
	if len(ring) == 0 {
		ring = [][]byte{nil}
	}
	for _, key := range ring {
		if hmac.Equal(mac, proof(key, client, exported, label, id)) {
			return hello{id: id, key: key}, nil
		}
	}
	return hello{}, errProof
}

// proof binds a key of the ring to one connection, one end and one identity.
func proof(key []byte, client bool, exported []byte, label, id string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(h, "%s %v %d:%s %d:%s ", streamProto, client, len(label), label, len(id), id)
	_, _ = h.Write(exported)
	return h.Sum(nil)
}

// A frame on a stream is preceded by its length in four bytes and one byte of
// flags.
const (
	flagGzip  = 1
	frameHead = 5
)

// zippers are gzip writers at rest: a new one costs most of a megabyte.
var zippers = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // a level that exists
	return w
}}

// packFrame returns a frame as it travels.
func packFrame(body []byte, compress bool) []byte {
	if compress && len(body) > compressFrom {
		var buf bytes.Buffer
		buf.Write(make([]byte, frameHead))
		w := zippers.Get().(*gzip.Writer)
		defer zippers.Put(w)
		w.Reset(&buf)
		_, _ = w.Write(body)
		if w.Close() == nil && buf.Len() < len(body) {
			b := buf.Bytes()
			binary.BigEndian.PutUint32(b, uint32(len(b)-frameHead))
			b[4] = flagGzip
			return b
		}
	}
	b := make([]byte, frameHead, frameHead+len(body))
	binary.BigEndian.PutUint32(b, uint32(len(body)))
	return append(b, body...)
}

// readFrame reads one frame of at most maxFrame bytes, also decompressed. It
// allocates as the bytes come, not as the length promises.
func readFrame(r io.Reader) ([]byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("frame of %d bytes: %w", n, errFrame)
	}
	var buf bytes.Buffer
	if _, err := io.CopyN(&buf, r, int64(n)); err != nil {
		return nil, err
	}
	if head[4]&flagGzip == 0 {
		return buf.Bytes(), nil
	}
	return unzip(&buf)
}

func unzip(r io.Reader) ([]byte, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	var out bytes.Buffer
	if _, err := io.Copy(&out, io.LimitReader(z, maxFrame+1)); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	if out.Len() > maxFrame {
		return nil, fmt.Errorf("frame decompresses to more than %d bytes: %w", maxFrame, errFrame)
	}
	return out.Bytes(), nil
}
