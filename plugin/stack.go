package fluid

import (
	"context"
	"runtime/metrics"
)

// ballast makes goroutines start with a stack that a query fits in.
//
// The DNS server starts a goroutine for each packet. With the 2 KiB that a
// goroutine has by default its stack grows twice while the reply is packed and
// sent, and each time every frame so far is adjusted: a quarter of what an
// answer costs. The runtime lets goroutines start with the average of what the
// goroutines had in use when it last looked for garbage (runtime/stack.go,
// gcComputeStartingStackSize), and of those a server has many small ones. One
// goroutine that rests on a deep stack raises the average. It costs the memory
// of its stack, maxFrames at most; where there are very many goroutines, as in
// a flood, its part of the average vanishes and they start small.
//
// It only ever makes things quicker: where the runtime does otherwise, because
// it is another one or GODEBUG says adaptivestackstart=0, stacks grow as usual.
type ballast struct {
	depth  chan int // in frames; what rest is to change to
	frames int      // sent last
	cycle  uint64   // of garbage collection, when frames was last looked at
	sample []metrics.Sample
}

const (
	// queryStack is a stack that ServeDNS and all around it fit in, bytes.
	queryStack = 8 << 10
	// frameSize is the size of one resting frame, bytes.
	frameSize   = 16 << 10
	firstFrames = 8
	maxFrames   = 31 // with what is above them just less than a stack of 512 KiB
)

func newBallast() *ballast {
	return &ballast{
		depth: make(chan int, 1), frames: firstFrames,
		sample: []metrics.Sample{{Name: "/gc/stack/starting-size:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}},
	}
}

// run rests until ctx ends.
func (b *ballast) run(ctx context.Context) {
	for n := firstFrames; n > 0; {
		n = b.rest(ctx, n)
	}
}

// rest waits on a stack of so many frames for the next depth, 0 at the end.
//
//go:noinline
func (b *ballast) rest(ctx context.Context, frames int) int {
	var room [frameSize]byte
	touch(room[:])
	if frames > 1 {
		return b.rest(ctx, frames-1)
	}
	select {
	case n := <-b.depth:
		return n
	case <-ctx.Done():
		return 0
	}
}

// adjust looks at what the last garbage collection made of the depth, and
// changes it if goroutines start with too little or far too much. It is called
// every now and then, by one goroutine.
func (b *ballast) adjust() {
	metrics.Read(b.sample)
	for i := range b.sample {
		if b.sample[i].Value.Kind() != metrics.KindUint64 {
			return // a runtime that does not tell
		}
	}
	size, cycle := b.sample[0].Value.Uint64(), b.sample[1].Value.Uint64()
	if cycle == b.cycle {
		return
	}
	b.cycle = cycle
	frames := b.frames
	switch {
	case size < queryStack:
		frames = min(frames*2, maxFrames)
	case size > 2*queryStack:
		frames = max(frames/2, 1)
	}
	if frames == b.frames {
		return
	}
	select {
	case b.depth <- frames:
		b.frames = frames
	default: // it did not run yet
	}
}

// makeRoom makes the goroutine's stack grow at once if less than 2 KiB of it
// are left, for goroutines that started small nevertheless. Growing here, before
// the writers and the packer have added their frames, adjusts half as many
// frames as in the middle of packing.
//
//go:noinline
func makeRoom() {
	// The check for room comes before the first statement and is for the
	// whole frame, used or not.
	if roomNeeded {
		var room [2048]byte
		touch(room[:])
	}
}

// roomNeeded is false, which the compiler does not know.
var roomNeeded bool

//go:noinline
func touch(room []byte) { room[0] = 1 }
