package transport

import "testing"

// BenchmarkOpen is a whole handshake: connection, TLS and both hellos.
func BenchmarkOpen(b *testing.B) {
	to := newTransport(b, Config{ID: "to", Keyring: testRing(b, 1)})
	go func() {
		for {
			select {
			case c := <-to.StreamCh():
				c.Close()
			case <-to.ctx.Done():
				return
			}
		}
	}()
	from := newTransport(b, Config{ID: "from", Keyring: testRing(b, 1)})
	for b.Loop() {
		s, err := from.open(b.Context(), to.Addr(), kindMemberlist, "to")
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// BenchmarkPacket seals and opens a packet of 1,300 bytes.
func BenchmarkPacket(b *testing.B) {
	s, o := newSealer("prod", testRing(b, 1)), newOpener(newSealer("prod", testRing(b, 1)))
	payload := make([]byte, 1300)
	var buf []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		buf = s.seal(buf[:0], payload)
		if _, reason := o.open(buf); reason != ReasonNone {
			b.Fatal(reason)
		}
	}
}
