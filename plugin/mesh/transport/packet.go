package transport

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

// A packet is sealed under a key that belongs to one run of one process:
//
//	0      magicSealed
//	1..4   tag of the cluster label
//	5..8   id of the ring key
//	9..24  salt of the sending process
//	25..36 nonce: four random bytes, then a counter
//	37..   AES-GCM ciphertext and tag
//
// The packet key is derived from ring key and salt, so the limit of 2^32
// random nonces under one AES-GCM key (NIST SP 800-38D 8.3) does not add up
// over the members, and the counter lets the receiver drop what it has seen.
// The first nine bytes and the whole label are authenticated. Without a ring
// a packet is magicPlain, the tag of the label and the payload.
const (
	magicPlain  = 0xF0 // neither of these begins a packet of plain memberlist
	magicSealed = 0xF1

	labelTagSize  = 4
	plainOverhead = 1 + labelTagSize
	saltSize      = 16
	nonceSize     = 12
	prefixSize    = plainOverhead + len(KeyID{})
	sealedHeader  = prefixSize + saltSize + nonceSize
	tagSize       = 16

	// PacketOverhead is how many bytes a Transport adds to a packet at most;
	// memberlist's UDPBufferSize is the wanted packet size less this.
	PacketOverhead = sealedHeader + tagSize

	// maxPacket is the largest payload of a UDP packet.
	maxPacket = 65507
	// maxSenders bounds the senders whose keys and windows are remembered.
	maxSenders = 8192
)

type labelTag [labelTagSize]byte

func tagOfLabel(label string) (t labelTag) {
	h := sha256.Sum256([]byte("fluid label " + label))
	copy(t[:], h[:])
	return t
}

func packetAEAD(k Key, salt []byte) cipher.AEAD {
	block, err := aes.NewCipher(k.derive(salt, "fluid packet", k.size))
	if err != nil {
		panic(err) // 16, 24 or 32 bytes
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the block size of GCM
	}
	return aead
}

// sealer seals the packets of one process. It is safe for concurrent use.
type sealer struct {
	label   string
	tag     labelTag
	ring    *Keyring // nil: packets go in clear
	salt    [saltSize]byte
	counter atomic.Uint64
	current atomic.Pointer[sealKey]
}

type sealKey struct {
	id   KeyID
	aead cipher.AEAD
}

func newSealer(label string, ring *Keyring) *sealer {
	s := &sealer{label: label, tag: tagOfLabel(label), ring: ring}
	rand.Read(s.salt[:]) // never fails
	return s
}

// overhead returns how many bytes seal adds.
func (s *sealer) overhead() int {
	if s.ring == nil {
		return plainOverhead
	}
	return PacketOverhead
}

// seal appends the packet that carries payload to dst.
func (s *sealer) seal(dst, payload []byte) []byte {
	if s.ring == nil {
		dst = append(dst, magicPlain)
		dst = append(dst, s.tag[:]...)
		return append(dst, payload...)
	}
	k := s.key()
	start := len(dst)
	dst = append(dst, magicSealed)
	dst = append(dst, s.tag[:]...)
	dst = append(dst, k.id[:]...)
	dst = append(dst, s.salt[:]...)
	var nonce [nonceSize]byte
	rand.Read(nonce[:4])
	binary.BigEndian.PutUint64(nonce[4:], s.counter.Add(1))
	dst = append(dst, nonce[:]...)
	return k.aead.Seal(dst, nonce[:], payload, additional(dst[start:start+prefixSize], s.label))
}

// key returns the packet key under the primary key of now.
func (s *sealer) key() *sealKey {
	primary := s.ring.snapshot()[0]
	if k := s.current.Load(); k != nil && k.id == primary.id {
		return k
	}
	k := &sealKey{id: primary.id, aead: packetAEAD(primary, s.salt[:])}
	s.current.Store(k)
	return k
}

// additional returns what is authenticated beside the payload.
func additional(prefix []byte, label string) []byte {
	aad := make([]byte, 0, prefixSize+255)
	return append(append(aad, prefix...), label...)
}

// opener opens packets. It belongs to the goroutine that reads them.
type opener struct {
	label   string
	tag     labelTag
	ring    *Keyring
	own     [saltSize]byte
	senders map[senderID]*sender
	clock   uint64 // counts packets, to find the sender that was silent longest
}

type senderID struct {
	key  KeyID
	salt [saltSize]byte
}

type sender struct {
	aead   cipher.AEAD
	window window
	used   uint64
}

func newOpener(s *sealer) *opener {
	return &opener{label: s.label, tag: s.tag, ring: s.ring, own: s.salt, senders: make(map[senderID]*sender)}
}

// open returns the payload of a packet in fresh memory of exactly its size, or
// the reason why it is dropped. It keeps nothing of pkt.
func (o *opener) open(pkt []byte) ([]byte, Reason) {
	if len(pkt) <= plainOverhead || (pkt[0] != magicPlain && pkt[0] != magicSealed) {
		return nil, ReasonMalformed
	}
	if labelTag(pkt[1:plainOverhead]) != o.tag {
		return nil, ReasonLabel
	}
	if (pkt[0] == magicPlain) != (o.ring == nil) {
		return nil, ReasonNoKey
	}
	if o.ring == nil {
		return append([]byte(nil), pkt[plainOverhead:]...), ReasonNone
	}
	return o.unseal(pkt)
}

func (o *opener) unseal(pkt []byte) ([]byte, Reason) {
	if len(pkt) <= PacketOverhead {
		return nil, ReasonMalformed
	}
	id := senderID{key: KeyID(pkt[plainOverhead:prefixSize]), salt: [saltSize]byte(pkt[prefixSize:])}
	if id.salt == o.own {
		return nil, ReasonReplay // our own packet sent back
	}
	// The ring is asked each time: a key that was removed opens nothing more.
	key, ok := findKey(o.ring.snapshot(), id.key)
	if !ok {
		return nil, ReasonWrongKey
	}
	nonce := pkt[sealedHeader-nonceSize : sealedHeader]
	counter := binary.BigEndian.Uint64(nonce[4:])
	from, known := o.senders[id]
	if !known {
		from = &sender{aead: packetAEAD(key, id.salt[:])}
	} else if !from.window.fresh(counter) {
		return nil, ReasonReplay
	}
	sealed := pkt[sealedHeader:]
	out, err := from.aead.Open(make([]byte, 0, len(sealed)-tagSize), nonce, sealed, additional(pkt[:prefixSize], o.label))
	if err != nil {
		return nil, ReasonForged
	}
	// Only what has proved a key is remembered.
	from.window.add(counter)
	o.clock++
	from.used = o.clock
	if !known {
		if len(o.senders) >= maxSenders {
			o.forget()
		}
		o.senders[id] = from
	}
	return out, ReasonNone
}

// forget makes room: it drops the senders that were silent longest, then any,
// down to seven eighths, so that the scan is rare.
func (o *opener) forget() {
	for id, s := range o.senders {
		if s.used+maxSenders < o.clock {
			delete(o.senders, id)
		}
	}
	for id := range o.senders {
		if len(o.senders) <= maxSenders*7/8 {
			return
		}
		delete(o.senders, id)
	}
}

// window remembers which counters of a sender were seen (RFC 4303 3.4.3).
type window struct {
	high uint64
	seen [windowWords]uint64
}

const windowWords = 16

// fresh reports whether a counter was not seen and is not too old to tell.
func (w *window) fresh(c uint64) bool {
	if c > w.high {
		return true
	}
	// Whole words come and go, so the age is counted in words.
	return w.high/64-c/64 < windowWords && w.seen[c/64%windowWords]&(1<<(c%64)) == 0
}

// add marks a counter as seen.
func (w *window) add(c uint64) {
	if c > w.high {
		// Each word that comes into the window is cleared once.
		for word := w.high/64 + 1; word <= c/64 && word <= w.high/64+windowWords; word++ {
			w.seen[word%windowWords] = 0
		}
		w.high = c
	}
	w.seen[c/64%windowWords] |= 1 << (c % 64)
}

func checkLabel(label string) error {
	if len(label) > 255 {
		return fmt.Errorf("it has %d bytes, at most 255 are allowed", len(label))
	}
	return nil
}
