package raftnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Both messages are a header (magic, version, length of the body) and a body of
// strings, each after a byte with its length. What a newer version appends to
// the body is skipped by an older one.
const (
	magic      = "FLUIDR"
	version    = 1
	headerSize = len(magic) + 1 + 2
	maxBody    = 1024
	maxString  = 255
)

// errPreamble is returned for bytes that are not one of the messages.
var errPreamble = errors.New("not a connection of Raft servers")

// preamble is what the dialer says.
type preamble struct {
	Cluster string // empty: not known yet
	To      string // server id that is wanted
	From    string // server id and name of the dialer
	Name    string
}

// verdict is what the listener decided.
type verdict uint8

const (
	accepted     verdict = iota
	otherServer          // the dialer wants another server
	otherCluster         // the dialer is of another cluster
	unproven             // the dialer's certificate is not that of the server it claims to be
)

// answer is what the listener says.
type answer struct {
	Verdict verdict
	Cluster string
	ID      string // server id of the listener
}

func (p *preamble) append(b []byte) ([]byte, error) {
	return appendMessage(b, nil, p.Cluster, p.To, p.From, p.Name)
}

func (a *answer) append(b []byte) ([]byte, error) {
	return appendMessage(b, []byte{byte(a.Verdict)}, a.Cluster, a.ID)
}

// readPreamble reads at most headerSize+maxBody bytes.
func readPreamble(r io.Reader) (preamble, error) {
	var p preamble
	body, err := readBody(r)
	if err == nil {
		_, err = cut(body, &p.Cluster, &p.To, &p.From, &p.Name)
	}
	return p, err
}

// readAnswer reads at most headerSize+maxBody bytes.
func readAnswer(r io.Reader) (answer, error) {
	var a answer
	body, err := readBody(r)
	if err != nil {
		return a, err
	}
	if len(body) == 0 {
		return a, fmt.Errorf("%w: empty answer", errPreamble)
	}
	a.Verdict = verdict(body[0])
	_, err = cut(body[1:], &a.Cluster, &a.ID)
	return a, err
}

func appendMessage(b, body []byte, fields ...string) ([]byte, error) {
	for _, f := range fields {
		if len(f) > maxString {
			return b, fmt.Errorf("field of %d bytes, at most %d", len(f), maxString)
		}
		body = append(append(body, byte(len(f))), f...)
	}
	if len(body) > maxBody {
		return b, fmt.Errorf("body of %d bytes, at most %d", len(body), maxBody)
	}
	b = append(append(b, magic...), version)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...), nil
}

// readBody reads one message and not a byte more: what follows is Raft's.
func readBody(r io.Reader) ([]byte, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if string(head[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: it begins with %q", errPreamble, head[:len(magic)])
	}
	if v := head[len(magic)]; v != version {
		return nil, fmt.Errorf("%w: version %d, this agent speaks %d", errPreamble, v, version)
	}
	n := binary.BigEndian.Uint16(head[len(magic)+1:])
	if n > maxBody {
		return nil, fmt.Errorf("%w: body of %d bytes, at most %d", errPreamble, n, maxBody)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return body, nil
}

// cut takes the strings off the front of body and returns the rest.
func cut(body []byte, fields ...*string) ([]byte, error) {
	for _, f := range fields {
		if len(body) == 0 || len(body)-1 < int(body[0]) {
			return nil, fmt.Errorf("%w: body ends in a field", errPreamble)
		}
		n := 1 + int(body[0])
		*f, body = string(body[1:n]), body[n:]
	}
	return body, nil
}
