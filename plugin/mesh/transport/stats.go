package transport

import "sync/atomic"

// Reason says why something was dropped, refused or closed.
type Reason uint8

// The reasons. They are metric labels: a name is never reused.
const (
	ReasonNone        Reason = iota
	ReasonCIDR               // the address is not in the allow list
	ReasonLabel              // of another cluster
	ReasonNoKey              // in clear where a key is required, or sealed where there is none
	ReasonWrongKey           // under a key that is not in the ring
	ReasonForged             // under a known key, but altered: the seal or the proof does not verify
	ReasonReplay             // a packet seen before, or too old to tell
	ReasonMalformed          // shorter or other than the format
	ReasonOversize           // larger than MaxFrame or than a packet may be
	ReasonBomb               // expands more than 100 times, or beyond what it claims
	ReasonQueueFull          // the bounded queue of a peer, or all queues together
	ReasonUnreachable        // no stream to the peer could be opened
	ReasonLimit              // too many connections
	ReasonHandshake          // TLS or the hello failed or took too long
	ReasonIdentity           // another member answered than the one that was dialed, or it is ourselves
	ReasonTimeout            // nothing was read or written in time
	ReasonPanic              // something panicked on what a peer sent
	ReasonDuplicate          // two streams between the same members: the other one stays
	ReasonReplaced           // the peer opened a newer stream
	ReasonIdle               // no frame for the idle timeout
	ReasonKeyRemoved         // every key the peer proved has left the ring
	ReasonClosed             // closed by this member, or it stops
	ReasonRemote             // closed by the peer, or the connection broke
	reasons
)

var reasonNames = [reasons]string{
	"none", "cidr", "label", "no_key", "wrong_key", "forged", "replay", "malformed", "oversize", "bomb",
	"queue_full", "unreachable", "limit", "handshake", "identity", "timeout", "panic", "duplicate", "replaced",
	"idle", "key_removed", "closed", "remote",
}

// String returns the reason as a metric label.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Reasons lists all reasons but ReasonNone.
func Reasons() []Reason {
	all := make([]Reason, 0, reasons-1)
	for r := ReasonNone + 1; r < reasons; r++ {
		all = append(all, r)
	}
	return all
}

// Stats is what a Transport has counted since it was made.
type Stats struct {
	PacketsIn, PacketsOut uint64 // packets given to and taken from memberlist
	PacketBytesIn         uint64 // of these on the wire
	PacketBytesOut        uint64
	FramesIn, FramesOut   uint64 // frames given to the handler, frames written
	FrameBytesIn          uint64 // of these on the stream, after gzip and before TLS
	FrameBytesOut         uint64
	Dials, Accepts        uint64 // streams of both kinds that were opened
	// PacketDrops and StreamDrops count received packets, and streams or frames
	// on them, that were refused. FrameDrops counts frames that Send took or
	// refused and that were not written. Closes counts frame streams that ended.
	PacketDrops, StreamDrops, FrameDrops, Closes Counts
	// Now.
	Streams    int // frame streams
	Handshakes int // connections not yet authenticated
	QueueBytes int // frames waiting, over all peers
}

// Counts has a number for every Reason.
type Counts [reasons]uint64

// Of returns the number for a reason.
func (c *Counts) Of(r Reason) uint64 {
	if r >= reasons {
		return 0
	}
	return c[r]
}

// Total returns the sum over all reasons.
func (c *Counts) Total() (n uint64) {
	for _, v := range c {
		n += v
	}
	return n
}

type counts [reasons]atomic.Uint64

func (c *counts) add(r Reason) { c[r].Add(1) }

func (c *counts) load() (out Counts) {
	for i := range c {
		out[i] = c[i].Load()
	}
	return out
}

// counters is what all parts of a Transport count in.
type counters struct {
	packetsIn, packetsOut, packetBytesIn, packetBytesOut atomic.Uint64
	framesIn, framesOut, frameBytesIn, frameBytesOut     atomic.Uint64
	dials, accepts                                       atomic.Uint64
	packetDrops, streamDrops, frameDrops, closes         counts
}

func (c *counters) load() Stats {
	return Stats{
		PacketsIn: c.packetsIn.Load(), PacketsOut: c.packetsOut.Load(),
		PacketBytesIn: c.packetBytesIn.Load(), PacketBytesOut: c.packetBytesOut.Load(),
		FramesIn: c.framesIn.Load(), FramesOut: c.framesOut.Load(),
		FrameBytesIn: c.frameBytesIn.Load(), FrameBytesOut: c.frameBytesOut.Load(),
		Dials: c.dials.Load(), Accepts: c.accepts.Load(),
		PacketDrops: c.packetDrops.load(), StreamDrops: c.streamDrops.load(),
		FrameDrops: c.frameDrops.load(), Closes: c.closes.load(),
	}
}
