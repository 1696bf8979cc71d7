package mesh

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"sync/atomic"

	"github.com/hashicorp/memberlist"

	"github.com/fluid-sd/fluid/plugin/catalog"
)

// maxState bounds the encoded catalog in a push/pull: memberlist refuses 20
// MiB, and joining would fail with it.
const maxState = 12 << 20

// carrier moves the catalog with memberlist itself: small deltas as
// broadcasts, everything in each push/pull. It is simple, and slow beyond a
// few changes a second.
type carrier struct {
	g     *gossip
	queue *memberlist.TransmitLimitedQueue
	over  atomic.Bool // the state outgrew maxState: push/pull carries a part
	inbox chan []byte
}

const (
	flagGzip   = 1    // of an encoded state
	maxMessage = 1200 // bytes of a broadcast; larger ones would never leave the queue
	inboxDepth = 4096
	queueDepth = 4096
)

func newCarrier(g *gossip) *carrier {
	c := &carrier{g: g, inbox: make(chan []byte, inboxDepth)}
	c.queue = &memberlist.TransmitLimitedQueue{RetransmitMult: 4, NumNodes: func() int {
		g.mu.Lock()
		defer g.mu.Unlock()
		return max(1, len(g.known))
	}}
	g.wg.Go(c.run)
	return c
}

// run takes in broadcasts, off memberlist's packet goroutine.
func (c *carrier) run() {
	for {
		select {
		case <-c.g.stop:
			return
		case b := <-c.inbox:
			c.frame(b)
		}
	}
}

// publish broadcasts a delta that fits; the others come with push/pull.
func (c *carrier) publish(d *catalog.Delta) {
	c.broadcast(appendDeltas(nil, framePush, endNot, []*catalog.Delta{d}))
}

// beacons broadcasts those that wait.
func (c *carrier) beacons() {
	c.g.step.Lock()
	defer c.g.step.Unlock()
	for b := c.g.eng.takeBeacons(); b != nil; b = c.g.eng.takeBeacons() {
		c.broadcast(b)
	}
}

func (c *carrier) commit(b *catalog.Batch) { c.broadcast(b.Append([]byte{frameBatch})) }

func (c *carrier) broadcast(b []byte) {
	if len(b) > maxMessage {
		c.g.drop("oversize")
		return
	}
	if c.queue.NumQueued() > queueDepth {
		c.queue.Prune(queueDepth / 2)
		c.g.drop("queue")
	}
	c.queue.QueueBroadcast(message(b))
}

// message is a broadcast that nothing invalidates.
type message []byte

// Invalidates implements memberlist.Broadcast.
func (message) Invalidates(memberlist.Broadcast) bool { return false }

// Message implements memberlist.Broadcast.
func (m message) Message() []byte { return m }

// Finished implements memberlist.Broadcast.
func (message) Finished() {}

func (c *carrier) message(b []byte) {
	select {
	case c.inbox <- b:
	default:
		c.g.drop("inbox")
	}
}

// frame takes in a broadcast or a part of a remote state; what a broadcast
// brought that was new goes on.
func (c *carrier) frame(b []byte) {
	g := c.g
	var fresh [][]byte
	defer c.beacons()
	g.do(func(now int64, cat *catalog.Catalog) {
		pos := cat.Position()
		g.eng.receive(now, cat, "", b)
		for _, d := range g.eng.takeFresh() {
			fresh = append(fresh, appendDeltas(nil, framePush, endNot, []*catalog.Delta{d}))
		}
		if cat.Position() != pos && b[0] == frameBatch {
			fresh = append(fresh, b)
		}
	})
	for _, f := range fresh {
		if len(f) <= maxMessage {
			c.broadcast(f)
		}
	}
}

// state encodes the whole catalog, up to maxState: frames with their lengths.
func (c *carrier) state() []byte {
	var buf bytes.Buffer
	var w io.Writer = &buf
	var z *gzip.Writer
	if c.g.cfg.Compression {
		buf.WriteByte(flagGzip)
		z, _ = gzip.NewWriterLevel(&buf, gzip.BestSpeed)
		w = z
	} else {
		buf.WriteByte(0)
	}
	size, over := 0, false
	put := func(frame []byte) bool {
		if size += len(frame) + 8; size > maxState {
			over = true
			return false
		}
		_, _ = w.Write(binary.AppendUvarint(nil, uint64(len(frame))))
		_, _ = w.Write(frame)
		return true
	}
	c.g.do(func(_ int64, cat *catalog.Catalog) {
		for _, b := range cat.Parts(c.g.eng.seal) {
			if !put(b.Append([]byte{frameBatch})) {
				return
			}
		}
		for _, h := range cat.Heads() {
			for _, d := range cat.Pull(catalog.Want{Origin: h.Origin}, maxState) {
				if !put(appendDeltas(nil, frameData, endNot, []*catalog.Delta{&d})) {
					return
				}
			}
		}
	})
	if z != nil {
		_ = z.Close()
	}
	if c.over.Store(over); over {
		c.g.drop("state")
	}
	return buf.Bytes()
}

// merge takes in what state made.
func (c *carrier) merge(b []byte) {
	if len(b) == 0 {
		return
	}
	var r io.Reader = bytes.NewReader(b[1:])
	if b[0]&flagGzip != 0 {
		z, err := gzip.NewReader(r)
		if err != nil {
			c.g.drop("malformed")
			return
		}
		r = io.LimitReader(z, 2*maxState)
	}
	all, err := io.ReadAll(r)
	if err != nil {
		c.g.drop("malformed")
		return
	}
	for len(all) > 0 {
		n, k := binary.Uvarint(all)
		if k <= 0 || n > uint64(len(all)-k) {
			c.g.drop("malformed")
			return
		}
		c.frame(all[k : k+int(n)])
		all = all[k+int(n):]
	}
}
