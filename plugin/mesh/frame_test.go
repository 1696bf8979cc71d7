package mesh

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

func TestFrames(t *testing.T) {
	for _, size := range []int{0, 1, compressFrom, compressFrom + 1, 100_000} {
		for _, compress := range []bool{false, true} {
			body := bytes.Repeat([]byte("fluid "), size/6+1)[:size]
			wire := packFrame(body, compress)
			if compress && size > compressFrom && len(wire) >= size {
				t.Errorf("%d bytes travel as %d", size, len(wire))
			}
			got, err := readFrame(bytes.NewReader(wire))
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes, compress %v: %v", size, compress, err)
			}
			for i := range min(len(wire), 300) {
				if _, err := readFrame(bytes.NewReader(wire[:i])); err == nil {
					t.Errorf("%d of %d bytes pass", i, len(wire))
				}
			}
		}
	}
}

// TestBomb refuses a frame that decompresses to far more than it is.
func TestBomb(t *testing.T) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	zeros := make([]byte, 1<<20)
	for range 64 {
		_, _ = w.Write(zeros)
	}
	_ = w.Close()
	wire := packFrame(z.Bytes(), false)
	wire[4] = flagGzip
	if _, err := readFrame(bytes.NewReader(wire)); !errors.Is(err, errFrame) {
		t.Errorf("a bomb of %d bytes: %v", len(wire), err)
	}
	if _, err := readFrame(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff, 0})); !errors.Is(err, errFrame) {
		t.Errorf("a frame of 4 GiB: %v", err)
	}
}

// TestProof covers what the handshake must refuse.
func TestProof(t *testing.T) {
	k := func(b byte) [][]byte { return [][]byte{bytes.Repeat([]byte{b}, 32)} }
	for _, tc := range []struct {
		name          string
		ring, ring2   [][]byte
		label, label2 string
		want          bool
	}{
		{"same", k(1), k(1), "m", "m", true},
		{"no keys", nil, nil, "m", "m", true},
		{"rotated", append(k(1), k(2)...), append(k(2), k(1)...), "m", "m", true},
		{"wrong key", k(1), k(2), "m", "m", false},
		{"key on one side", k(1), nil, "m", "m", false},
		{"other label", k(1), k(1), "m", "n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := throwaway()
			if err != nil {
				t.Fatal(err)
			}
			a, b := net.Pipe()
			type result struct {
				peer hello
				err  error
			}
			server := make(chan result, 1)
			go func() {
				_, peer, err := prove(b, cfg, false, "server", tc.label2, tc.ring2)
				if err != nil {
					_ = b.Close()
				}
				server <- result{peer, err}
			}()
			_, peer, err := prove(a, cfg, true, "client", tc.label, tc.ring)
			if err != nil {
				_ = a.Close()
			}
			s := <-server
			_, _ = a.Close(), b.Close()
			if ok := err == nil && s.err == nil; ok != tc.want {
				t.Errorf("client %v, server %v", err, s.err)
			}
			if tc.want && (peer.id != "server" || s.peer.id != "client") {
				t.Errorf("client sees %q, server sees %q", peer.id, s.peer.id)
			}
		})
	}
	t.Run("proof of another connection", func(t *testing.T) {
		one := proof(k(1)[0], true, []byte("exporter of one"), "m", "x")
		var wire bytes.Buffer
		wire.Write([]byte{1, 'x'})
		wire.Write(one)
		if _, err := readHello(&wire, true, []byte("exporter of two"), "m", k(1)); !errors.Is(err, errProof) {
			t.Errorf("a replayed proof: %v", err)
		}
	})
	t.Run("proof of the own end", func(t *testing.T) {
		exported := []byte("exporter")
		var wire bytes.Buffer
		wire.Write([]byte{1, 'x'})
		wire.Write(proof(k(1)[0], true, exported, "m", "x"))
		if _, err := readHello(&wire, false, exported, "m", k(1)); !errors.Is(err, errProof) {
			t.Errorf("a reflected proof: %v", err)
		}
	})
}

// FuzzReceive gives frames of any content to an engine that holds something.
func FuzzReceive(f *testing.F) {
	d := catalog.Delta{Origin: record.OriginID{1}, Epoch: 1, To: 2, Items: []catalog.Item{{Key: "i/web/a", Seq: 1, Value: "x"}}}
	h := have{heads: []catalog.Head{{Origin: record.OriginID{2}, Epoch: 1, Watermark: 9}}, mask: []byte{1}}
	f.Add(appendDeltas(nil, framePush, endNot, []*catalog.Delta{&d}))
	f.Add(h.append(nil, frameHave))
	f.Add(h.append(nil, frameHeads))
	f.Add((&digest{}).append(nil))
	f.Add((&fetch{part: 1}).append(nil))
	f.Add((&catalog.Batch{Full: true, Parts: 3}).Append([]byte{frameBatch}))
	f.Add(catalog.AppendWants([]byte{framePull}, []catalog.Want{{Origin: record.OriginID{1}}}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		c := catalog.New()
		e := newEngine("self", "cluster", 1)
		e.peerUp(0, "peer")
		for now := range int64(3) {
			e.begin()
			e.receive(now, c, "peer", slices.Clone(frame))
			e.tick(now+100_000, c)
			if out, _ := e.end(); len(out) > 100 {
				t.Errorf("%d frames in answer to one", len(out))
			}
		}
	})
}

// TestFlood lets a peer announce more origins than can exist: what the engine
// remembers of it ends at a bound, and is forgotten when nobody has them.
func TestFlood(t *testing.T) {
	c := catalog.New()
	e := newEngine("self", "", 1)
	e.peerUp(0, "peer")
	var h have
	h.mask = bytes.Repeat([]byte{0xff}, buckets/8)
	for i := range 6000 {
		h.heads = append(h.heads, catalog.Head{Origin: record.OriginID{1, byte(i), byte(i >> 8)}, Epoch: 1, Watermark: 5})
	}
	e.begin()
	e.receive(1, c, "peer", h.append(nil, frameHeads))
	if len(e.pulls) > maxPulls || e.stats.Dropped["pulls"] == 0 {
		t.Errorf("%d pulls remembered, %d dropped", len(e.pulls), e.stats.Dropped["pulls"])
	}
	for now := int64(1); now < 2*pullRetry*(vainPulls+2)*(maxPulls/maxHeads) && len(e.pulls) > 0; now += pullRetry {
		e.begin()
		e.tick(now, c)
	}
	if len(e.pulls) != 0 || len(c.Heads()) != 0 {
		t.Errorf("%d pulls and %d origins remain", len(e.pulls), len(c.Heads()))
	}
}
