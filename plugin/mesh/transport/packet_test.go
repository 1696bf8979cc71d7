package transport

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func TestPackets(t *testing.T) {
	sealed := newSealer("prod", testRing(t, 1, 2)).seal(nil, []byte("payload"))
	flip := func(i int) []byte {
		b := bytes.Clone(sealed)
		b[i] ^= 1
		return b
	}
	self := newSealer("prod", testRing(t, 1))
	for _, tc := range []struct {
		name string
		pkt  []byte
		ring *Keyring
		want Reason
	}{
		{"same key", sealed, testRing(t, 1), ReasonNone},
		{"second key of the ring", sealed, testRing(t, 3, 1), ReasonNone},
		{"wrong key", sealed, testRing(t, 2), ReasonWrongKey},
		{"sealed where no key is", sealed, nil, ReasonNoKey},
		{"plain where no key is", newSealer("prod", nil).seal(nil, []byte("payload")), nil, ReasonNone},
		{"plain where a key is", newSealer("prod", nil).seal(nil, []byte("payload")), testRing(t, 1), ReasonNoKey},
		{"another label", newSealer("test", testRing(t, 1)).seal(nil, []byte("payload")), testRing(t, 1), ReasonLabel},
		{"another label in clear", newSealer("test", nil).seal(nil, []byte("payload")), nil, ReasonLabel},
		{"label tag forged", flip(1), testRing(t, 1), ReasonLabel},
		{"key id forged", flip(plainOverhead), testRing(t, 1), ReasonWrongKey},
		{"salt forged", flip(prefixSize), testRing(t, 1), ReasonForged},
		{"nonce forged", flip(sealedHeader - 1), testRing(t, 1), ReasonForged},
		{"payload forged", flip(sealedHeader), testRing(t, 1), ReasonForged},
		{"tag forged", flip(len(sealed) - 1), testRing(t, 1), ReasonForged},
		{"longer", append(bytes.Clone(sealed), 0), testRing(t, 1), ReasonForged},
		{"empty", nil, testRing(t, 1), ReasonMalformed},
		{"of memberlist itself", []byte{244, 4, 'p', 'r', 'o', 'd', 1, 2, 3}, testRing(t, 1), ReasonMalformed},
		{"our own", nil, self.ring, ReasonReplay},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOpener(newSealer("prod", tc.ring))
			if tc.name == "our own" {
				o, tc.pkt = newOpener(self), self.seal(nil, []byte("payload"))
			}
			got, reason := o.open(tc.pkt)
			if reason != tc.want {
				t.Fatalf("%s, want %s", reason, tc.want)
			}
			if reason == ReasonNone && string(got) != "payload" {
				t.Errorf("payload %q", got)
			}
			if reason == ReasonNone && cap(got) > len(got)+tagSize {
				t.Errorf("payload of %d bytes pins %d", len(got), cap(got))
			}
		})
	}
	t.Run("truncated", func(t *testing.T) {
		o := newOpener(newSealer("prod", testRing(t, 1)))
		for n := range sealed {
			if _, reason := o.open(sealed[:n]); reason == ReasonNone {
				t.Errorf("%d of %d bytes were accepted", n, len(sealed))
			}
		}
	})
	t.Run("key removed", func(t *testing.T) {
		ring := testRing(t, 2, 1)
		o, s := newOpener(newSealer("prod", ring)), newSealer("prod", testRing(t, 1))
		if _, reason := o.open(s.seal(nil, []byte("x"))); reason != ReasonNone {
			t.Fatal(reason)
		}
		if err := ring.Remove(testKey(t, 1).ID()); err != nil {
			t.Fatal(err)
		}
		if _, reason := o.open(s.seal(nil, []byte("x"))); reason != ReasonWrongKey {
			t.Errorf("%s, want %s", reason, ReasonWrongKey)
		}
	})
}

// What a sender writes follows its ring at once, and two packets never share a
// nonce.
func TestSealFollowsRing(t *testing.T) {
	ring := testRing(t, 1, 2)
	s := newSealer("prod", ring)
	only1, only2 := newOpener(newSealer("prod", testRing(t, 1))), newOpener(newSealer("prod", testRing(t, 2)))
	for i, o := range []*opener{only1, only2, only1} {
		if err := ring.Use(testKey(t, byte(1+i%2)).ID()); err != nil {
			t.Fatal(err)
		}
		if _, reason := o.open(s.seal(nil, []byte("x"))); reason != ReasonNone {
			t.Errorf("after change %d: %s", i, reason)
		}
	}
	a, b := s.seal(nil, []byte("x")), s.seal(nil, []byte("x"))
	if bytes.Equal(a[prefixSize:sealedHeader], b[prefixSize:sealedHeader]) {
		t.Error("two packets have one nonce")
	}
}

func TestReplay(t *testing.T) {
	s, o := newSealer("", testRing(t, 1)), newOpener(newSealer("", testRing(t, 1)))
	var pkts [][]byte
	for i := range 3000 {
		pkts = append(pkts, s.seal(nil, []byte(fmt.Sprint(i))))
	}
	for i, pkt := range pkts {
		if i%2 == 1 {
			continue // late
		}
		if _, reason := o.open(pkt); reason != ReasonNone {
			t.Fatalf("packet %d: %s", i, reason)
		}
	}
	for i, pkt := range pkts {
		want := ReasonReplay
		if i%2 == 1 && i > 2999-900 {
			want = ReasonNone // late, but in the window
		} else if i%2 == 1 && i > 2999-1100 {
			continue // at the edge
		}
		if _, reason := o.open(pkt); reason != want {
			t.Fatalf("packet %d again: %s, want %s", i, reason, want)
		}
	}
	// An old key does not forget: the same process under another key of the
	// ring counts on.
	if _, reason := o.open(pkts[2999]); reason != ReasonReplay {
		t.Error(reason)
	}
}

// The window against a set that remembers everything.
func TestWindowModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		seen := map[uint64]bool{}
		base := rapid.Uint64Range(1, 1<<40).Draw(t, "base")
		for _, d := range rapid.SliceOf(rapid.Uint64Range(0, 4000)).Draw(t, "counters") {
			c := base + d
			fresh := w.fresh(c)
			if seen[c] && fresh {
				t.Fatalf("counter %d is fresh again", c)
			}
			if !seen[c] && !fresh && c+(windowWords-1)*64 > w.high {
				t.Fatalf("counter %d is refused, the highest is %d", c, w.high)
			}
			if fresh {
				w.add(c)
				seen[c] = true
			}
		}
	})
}

func TestSendersAreBounded(t *testing.T) {
	ring := testRing(t, 1)
	o := newOpener(newSealer("", ring))
	keep := newSealer("", ring)
	for i := range maxSenders + 100 {
		if i%100 == 0 {
			if _, reason := o.open(keep.seal(nil, []byte("x"))); reason != ReasonNone {
				t.Fatal(reason)
			}
		}
		if _, reason := o.open(newSealer("", ring).seal(nil, []byte("x"))); reason != ReasonNone {
			t.Fatal(reason)
		}
	}
	if len(o.senders) > maxSenders {
		t.Errorf("%d senders are remembered, at most %d are allowed", len(o.senders), maxSenders)
	}
	// Packets that prove nothing leave nothing behind.
	n := len(o.senders)
	for range 100 {
		pkt := newSealer("", ring).seal(nil, []byte("x"))
		pkt[len(pkt)-1] ^= 1
		if _, reason := o.open(pkt); reason != ReasonForged {
			t.Fatal(reason)
		}
	}
	if len(o.senders) != n {
		t.Errorf("%d forged packets were remembered", len(o.senders)-n)
	}
}

func FuzzOpenPacket(f *testing.F) {
	ring, other := testRing(f, 1, 2), testRing(f, 3)
	s := newSealer("prod", ring)
	f.Add(s.seal(nil, []byte("payload")))
	f.Add(newSealer("prod", nil).seal(nil, []byte("payload")))
	f.Add(newSealer("prod", other).seal(nil, nil))
	f.Add([]byte{magicSealed})
	f.Fuzz(func(t *testing.T, pkt []byte) {
		for _, o := range []*opener{newOpener(newSealer("prod", ring)), newOpener(newSealer("prod", nil))} {
			before := bytes.Clone(pkt)
			_, reason := o.open(pkt)
			if !bytes.Equal(before, pkt) {
				t.Fatal("the packet was changed")
			}
			if reason == ReasonNone && o.ring != nil {
				if _, again := o.open(pkt); again != ReasonReplay {
					t.Fatalf("taken twice: %s", again)
				}
			}
		}
	})
}
