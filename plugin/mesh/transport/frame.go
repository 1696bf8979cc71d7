package transport

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// After the hellos a stream carries messages: one byte that says what it is,
// four bytes of length, the payload.
//
//	frame   the frame
//	gzip    4 bytes of its length, then the frame as one gzip member (RFC 1952)
//	ping    nothing; tells that the sender lives
//	proof   proofs of the keys the sender holds now, as in the hello
//	bye     1 byte, the Reason; nothing follows
const (
	// MaxFrame is the largest frame in bytes, before compression.
	MaxFrame = 4 << 20
	// MaxRatio is how many times larger than received a frame may become.
	MaxRatio = 100
	// compressAbove is the size in bytes above which a frame is compressed.
	compressAbove = 256

	headerSize = 5
	lengthSize = 4
	// maxMessage bounds what gzip adds to a frame that does not compress.
	maxMessage = MaxFrame + lengthSize
	// firstChunk is how much is allocated on the word of a length alone.
	firstChunk = 64 << 10
)

type messageType uint8

const (
	messageFrame messageType = 1
	messageGzip  messageType = 2
	messagePing  messageType = 3
	messageProof messageType = 4
	messageBye   messageType = 5
)

// maxPayload bounds the payload of each type of message.
func (m messageType) maxPayload() int {
	switch m {
	case messageFrame:
		return MaxFrame
	case messageGzip:
		return maxMessage
	case messageProof:
		return 1 + MaxKeys*(len(KeyID{})+proofSize)
	case messageBye:
		return 1
	default:
		return 0
	}
}

// appendHeader appends the header of a message of n bytes.
func appendHeader(dst []byte, m messageType, n int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, byte(m)), uint32(n))
}

// readMessage reads the next message. The payload is fresh memory and never
// much larger than what was received. io.EOF comes only between messages.
func readMessage(r *bufio.Reader) (messageType, []byte, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	m, n := messageType(h[0]), int(binary.BigEndian.Uint32(h[1:]))
	if m < messageFrame || m > messageBye {
		return m, nil, refuse(ReasonMalformed, "message type %d", m)
	}
	if n > m.maxPayload() {
		return m, nil, refuse(ReasonOversize, "message of type %d has %d bytes, at most %d are allowed", m, n, m.maxPayload())
	}
	buf := make([]byte, 0, min(n, firstChunk))
	for len(buf) < n {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(n, 4*cap(buf)))
			copy(grown, buf)
			buf = grown
		}
		k, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+k]
		if err != nil {
			return m, nil, noEOF(err)
		}
	}
	return m, buf, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}

// gunzip returns the frame in the payload of a gzip message.
func gunzip(payload []byte) ([]byte, error) {
	if len(payload) < lengthSize {
		return nil, refuse(ReasonMalformed, "gzip message of %d bytes", len(payload))
	}
	size := int64(binary.BigEndian.Uint32(payload))
	packed := payload[lengthSize:]
	switch {
	case size > MaxFrame:
		return nil, refuse(ReasonOversize, "frame has %d bytes, at most %d are allowed", size, MaxFrame)
	case size > MaxRatio*int64(len(packed)):
		return nil, refuse(ReasonBomb, "%d bytes claim to expand to %d", len(packed), size)
	}
	in := bytes.NewReader(packed)
	zr := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(zr)
	if err := zr.Reset(in); err != nil {
		return nil, refuse(ReasonMalformed, "gzip: %w", err)
	}
	zr.Multistream(false)
	out := make([]byte, size)
	if _, err := io.ReadFull(zr, out); err != nil {
		return nil, refuse(ReasonMalformed, "gzip: %w", noEOF(err))
	}
	var more [1]byte
	switch n, err := zr.Read(more[:]); {
	case n > 0:
		return nil, refuse(ReasonBomb, "frame is larger than the %d bytes it claims", size)
	case !errors.Is(err, io.EOF):
		return nil, refuse(ReasonMalformed, "gzip: %w", err) // the checksum
	case in.Len() > 0:
		return nil, refuse(ReasonMalformed, "%d bytes follow the gzip member", in.Len())
	}
	return out, nil
}

var gzipWriters = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level exists
	}
	return w
}}

// outFrame is a frame on its way to one or more peers. It is compressed once,
// by the first stream that writes it.
type outFrame struct {
	raw  []byte
	once sync.Once
	gz   []byte // payload of a gzip message, nil if the frame goes as it is
}

// message returns how the frame is written. The payload must not be changed.
func (f *outFrame) message(compress bool) (messageType, []byte) {
	if !compress || len(f.raw) <= compressAbove {
		return messageFrame, f.raw
	}
	f.once.Do(f.pack)
	if f.gz == nil {
		return messageFrame, f.raw
	}
	return messageGzip, f.gz
}

func (f *outFrame) pack() {
	var buf bytes.Buffer
	buf.Grow(len(f.raw) / 3)
	var size [lengthSize]byte
	binary.BigEndian.PutUint32(size[:], uint32(len(f.raw)))
	buf.Write(size[:])
	zw := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(zw)
	zw.Reset(&buf)
	if _, err := zw.Write(f.raw); err != nil {
		return // a Buffer takes everything
	}
	if err := zw.Close(); err != nil {
		return
	}
	packed := buf.Len() - lengthSize
	// One that expands too far would be taken for a bomb.
	if buf.Len() < len(f.raw) && len(f.raw) <= MaxRatio*packed {
		f.gz = buf.Bytes()
	}
}
