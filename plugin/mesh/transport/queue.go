package transport

// Priority orders the frames that wait for one peer.
type Priority uint8

const (
	// Control frames go before all others: digests, pulls, announcements. They
	// are small, and repairs depend on them.
	Control Priority = iota
	// Data frames were asked for.
	Data
	// Eager frames were not; what is lost of them is repaired.
	Eager

	priorities
)

// queue holds the frames that wait for one peer: first in, first out in each
// priority, each with its own bound, so that no amount of data keeps control
// frames out. It is not safe for concurrent use.
type queue struct {
	frames [priorities][]*outFrame
	head   [priorities]int // of frames: what is before it was taken
	bytes  [priorities]int
}

// push appends a frame unless its priority is full. A single frame is always
// taken.
func (q *queue) push(f *outFrame, p Priority, maxFrames, maxBytes int) bool {
	n := len(q.frames[p]) - q.head[p]
	if n > 0 && (n >= maxFrames || q.bytes[p]+len(f.raw) > maxBytes) {
		return false
	}
	if q.head[p] > 0 && len(q.frames[p]) == cap(q.frames[p]) {
		// Move to the front rather than grow.
		rest := copy(q.frames[p], q.frames[p][q.head[p]:])
		clear(q.frames[p][rest:])
		q.frames[p], q.head[p] = q.frames[p][:rest], 0
	}
	q.frames[p] = append(q.frames[p], f)
	q.bytes[p] += len(f.raw)
	return true
}

// pop takes the next frame, nil if there is none.
func (q *queue) pop() *outFrame {
	for p := range q.frames {
		if q.head[p] == len(q.frames[p]) {
			continue
		}
		f := q.frames[p][q.head[p]]
		q.frames[p][q.head[p]] = nil
		q.head[p]++
		q.bytes[p] -= len(f.raw)
		if q.head[p] == len(q.frames[p]) {
			q.frames[p], q.head[p] = q.frames[p][:0], 0
		}
		return f
	}
	return nil
}

// size returns the bytes that wait.
func (q *queue) size() (n int) {
	for _, b := range q.bytes {
		n += b
	}
	return n
}

// len returns the frames that wait.
func (q *queue) len() (n int) {
	for p := range q.frames {
		n += len(q.frames[p]) - q.head[p]
	}
	return n
}
