package transport

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
)

func sampleHello(ring *Keyring, r role) (hello, []byte) {
	h := hello{kind: kindFrames, label: tagOfLabel("prod"), nonce: [8]byte{1, 2, 3}, member: "agent-a"}
	ts := transcript(r, bytes.Repeat([]byte{9}, exporterSize), "prod", &h)
	if ring != nil {
		h.proofs = prove(ring.snapshot(), ts)
	}
	return h, ts
}

func TestHelloRoundTrip(t *testing.T) {
	for _, ring := range []*Keyring{nil, testRing(t, 1), testRing(t, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)} {
		want, _ := sampleHello(ring, roleDialer)
		b := want.append(nil)
		if n := int(binary.BigEndian.Uint16(b)); n != len(b)-2 || n > maxHello {
			t.Errorf("length %d of %d bytes, at most %d", n, len(b)-2, maxHello)
		}
		got, err := decodeHello(b[2:])
		if err != nil {
			t.Fatal(err)
		}
		if len(want.proofs) == 0 {
			want.proofs = []proof{}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("decoded %+v, want %+v", got, want)
		}
		for n := range b[2:] {
			if _, err := decodeHello(b[2 : 2+n]); err == nil {
				t.Errorf("%d of %d bytes decode", n, len(b)-2)
			}
		}
		if _, err := decodeHello(append(bytes.Clone(b[2:]), 0)); err == nil {
			t.Error("one byte more decodes")
		}
	}
}

func TestProofs(t *testing.T) {
	ring := testRing(t, 1, 2)
	h, ts := sampleHello(ring, roleDialer)
	exporter := bytes.Repeat([]byte{9}, exporterSize)
	other := func(edit func(*hello)) []byte {
		g := h
		edit(&g)
		return transcript(roleDialer, exporter, "prod", &g)
	}
	for _, tc := range []struct {
		name string
		ring *Keyring
		ts   []byte
		want Reason
	}{
		{"both keys", ring, ts, ReasonNone},
		{"one key in common", testRing(t, 7, 2), ts, ReasonNone},
		{"no key in common", testRing(t, 7), ts, ReasonWrongKey},
		{"reflected", ring, transcript(roleAcceptor, exporter, "prod", &h), ReasonForged},
		{"another connection", ring, transcript(roleDialer, bytes.Repeat([]byte{8}, exporterSize), "prod", &h), ReasonForged},
		{"another label", ring, transcript(roleDialer, exporter, "prod2", &h), ReasonForged},
		{"another member", ring, other(func(g *hello) { g.member = "agent-b" }), ReasonForged},
		{"another process", ring, other(func(g *hello) { g.nonce[0]++ }), ReasonForged},
		{"another kind", ring, other(func(g *hello) { g.kind = kindMemberlist }), ReasonForged},
		{"another status", ring, other(func(g *hello) { g.status = statusLimit }), ReasonForged},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := verifyMode(tc.ring, h.proofs, tc.ts); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
	if got := verifyMode(ring, nil, ts); got != ReasonNoKey {
		t.Errorf("no proof: %s, want %s", got, ReasonNoKey)
	}
	if got := verifyMode(nil, h.proofs, ts); got != ReasonNoKey {
		t.Errorf("proofs where there is no ring: %s, want %s", got, ReasonNoKey)
	}
	if got := verifyMode(nil, nil, ts); got != ReasonNone {
		t.Errorf("neither: %s", got)
	}
}

func FuzzDecodeHello(f *testing.F) {
	for _, ring := range []*Keyring{nil, testRing(f, 1, 2)} {
		h, _ := sampleHello(ring, roleDialer)
		f.Add(h.append(nil)[2:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		if got := h.append(nil)[2:]; !bytes.Equal(got, b) {
			t.Errorf("decoded %x, encodes as %x", b, got)
		}
	})
}
