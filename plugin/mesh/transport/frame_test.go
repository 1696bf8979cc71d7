package transport

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"pgregory.net/rapid"
)

// pack returns the payload of a gzip message that claims a size.
func pack(t testing.TB, raw []byte, claim int) []byte {
	t.Helper()
	var buf bytes.Buffer
	buf.Write(binary.BigEndian.AppendUint32(nil, uint32(claim)))
	zw := gzip.NewWriter(&buf)
	if _, err := zw.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestGunzip(t *testing.T) {
	text := []byte(strings.Repeat("fluid is a discovery system. ", 40))
	good := pack(t, text, len(text))
	flip := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 0xFF
		return b
	}
	zeros := make([]byte, 64<<20)
	for _, tc := range []struct {
		name    string
		payload []byte
		want    Reason
	}{
		{"as sent", good, ReasonNone},
		{"empty", nil, ReasonMalformed},
		{"no gzip", []byte{0, 0, 0, 1, 2, 3}, ReasonMalformed},
		{"larger than a frame", pack(t, zeros[:MaxFrame+1], MaxFrame+1), ReasonOversize},
		{"bomb that tells", pack(t, zeros, MaxFrame), ReasonBomb},
		{"bomb that lies", pack(t, zeros, 1000), ReasonBomb},
		{"too dense", pack(t, zeros[:MaxFrame], MaxFrame), ReasonBomb},
		{"claims more", pack(t, text, len(text)+1), ReasonMalformed},
		{"claims less", pack(t, text, len(text)-1), ReasonBomb},
		{"bit flipped in the data", flip(len(good) / 2), ReasonMalformed},
		{"bit flipped in the checksum", flip(len(good) - 5), ReasonMalformed},
		{"bytes follow", append(bytes.Clone(good), 0), ReasonMalformed},
		{"two members", append(bytes.Clone(good), pack(t, text, 0)[4:]...), ReasonMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := gunzip(tc.payload)
			if tc.want == ReasonNone {
				if err != nil || !bytes.Equal(got, text) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				return
			}
			var r *refused
			if !errors.As(err, &r) || r.reason != tc.want {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
	for n := range good {
		if _, err := gunzip(good[:n]); err == nil {
			t.Errorf("%d of %d bytes decode", n, len(good))
		}
	}
}

func TestReadMessage(t *testing.T) {
	msg := func(m messageType, n int, payload string) string {
		return string(appendHeader(nil, m, n)) + payload
	}
	for _, tc := range []struct {
		name, in string
		want     Reason // ReasonNone: the payload, else ReasonRemote: cut off
	}{
		{"frame", msg(messageFrame, 3, "abc"), ReasonNone},
		{"empty frame", msg(messageFrame, 0, ""), ReasonNone},
		{"ping", msg(messagePing, 0, ""), ReasonNone},
		{"ping with payload", msg(messagePing, 1, "x"), ReasonOversize},
		{"unknown type", msg(9, 0, ""), ReasonMalformed},
		{"type 0", msg(0, 0, ""), ReasonMalformed},
		{"oversized", msg(messageFrame, MaxFrame+1, ""), ReasonOversize},
		{"oversized gzip", msg(messageGzip, maxMessage+1, ""), ReasonOversize},
		{"huge", msg(messageFrame, 0xFFFFFFFF, ""), ReasonOversize},
		{"bye with reason", msg(messageBye, 1, "x"), ReasonNone},
		{"long bye", msg(messageBye, 2, "xy"), ReasonOversize},
		{"cut header", msg(messageFrame, 3, "abc")[:4], ReasonRemote},
		{"cut payload", msg(messageFrame, 4, "abc"), ReasonRemote},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, payload, err := readMessage(bufio.NewReader(strings.NewReader(tc.in)))
			if tc.want == ReasonNone {
				if err != nil || string(payload) != tc.in[headerSize:] {
					t.Errorf("payload %q, %v", payload, err)
				}
				return
			}
			if err == nil || errors.Is(err, io.EOF) || endReason(err) != tc.want {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
}

// A length alone allocates little.
func TestReadMessageMemory(t *testing.T) {
	in := append(appendHeader(nil, messageFrame, MaxFrame), make([]byte, 1000)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 100
	for range n {
		if _, _, err := readMessage(bufio.NewReader(bytes.NewReader(in))); err == nil {
			t.Fatal("a message that was cut off is read")
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > 2*firstChunk {
		t.Errorf("%d bytes are allocated for 1000 that were received", each)
	}
}

func TestMessageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		frame := rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "frame")
		if n := rapid.IntRange(0, 200000).Draw(t, "repeat"); n > 0 {
			frame = append(frame, bytes.Repeat([]byte("ab"), n)...)
		}
		f := &outFrame{raw: frame}
		m, payload := f.message(rapid.Bool().Draw(t, "gzip"))
		var buf bytes.Buffer
		w := bufio.NewWriter(&buf)
		if err := writeMessage(w, m, payload); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		gm, got, err := readMessage(bufio.NewReader(&buf))
		if err == nil && gm == messageGzip {
			if len(got) >= len(frame) {
				t.Errorf("%d bytes were packed into %d", len(frame), len(got))
			}
			got, err = gunzip(got)
		}
		if err != nil || !bytes.Equal(got, frame) {
			t.Errorf("%d bytes, %v, want %d", len(got), err, len(frame))
		}
	})
}

func TestQueue(t *testing.T) {
	// Against two slices.
	rapid.Check(t, func(t *rapid.T) {
		const maxFrames, maxBytes = 5, 100
		var q queue
		var model [priorities][]*outFrame
		size := func(p Priority) (n int) {
			for _, f := range model[p] {
				n += len(f.raw)
			}
			return n
		}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "push") {
				p := Priority(rapid.IntRange(0, int(Eager)).Draw(t, "priority"))
				f := &outFrame{raw: make([]byte, rapid.IntRange(0, 120).Draw(t, "size"))}
				want := len(model[p]) == 0 || (len(model[p]) < maxFrames && size(p)+len(f.raw) <= maxBytes)
				if got := q.push(f, p, maxFrames, maxBytes); got != want {
					t.Fatalf("push %v, want %v", got, want)
				}
				if want {
					model[p] = append(model[p], f)
				}
			} else {
				var want *outFrame
				for p := range model {
					if len(model[p]) > 0 {
						want, model[p] = model[p][0], model[p][1:]
						break
					}
				}
				if got := q.pop(); got != want {
					t.Fatalf("pop %p, want %p", got, want)
				}
			}
			frames, bytes := 0, 0
			for p := range priorities {
				frames, bytes = frames+len(model[p]), bytes+size(p)
			}
			if q.len() != frames || q.size() != bytes {
				t.Fatalf("%d frames, %d bytes, want %d, %d", q.len(), q.size(), frames, bytes)
			}
		}
	})
}

func FuzzReadMessages(f *testing.F) {
	text := []byte(strings.Repeat("fluid ", 100))
	z := pack(f, text, len(text))
	f.Add(slices.Concat(appendHeader(nil, messageFrame, 3), []byte("abc"), appendHeader(nil, messagePing, 0),
		appendHeader(nil, messageGzip, len(z)), z, appendHeader(nil, messageBye, 1), []byte{1}))
	f.Add(appendHeader(nil, messageFrame, MaxFrame))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			m, payload, err := readMessage(r)
			if err != nil {
				return
			}
			switch m {
			case messageGzip:
				out, err := gunzip(payload)
				if err == nil && (len(out) > MaxFrame || len(out) > MaxRatio*len(payload)) {
					t.Fatalf("%d bytes expand to %d", len(payload), len(out))
				}
			case messageProof:
				if proofs, err := decodeProofs(payload); err == nil && !bytes.Equal(appendProofs(nil, proofs), payload) {
					t.Fatal("proofs encode differently")
				}
			}
		}
	})
}
