package fluid

import (
	"testing"
	"unsafe"
)

//go:noinline
func deep() byte {
	var frame [1800]byte
	touch(frame[:])
	return frame[0]
}

// A stack that moved has grown: after makeRoom, 1.8 KiB fit without.
func TestMakeRoom(t *testing.T) {
	moved := make(chan bool)
	for range 10 {
		go func() {
			makeRoom()
			var here byte
			before := uintptr(unsafe.Pointer(&here))
			deep()
			moved <- uintptr(unsafe.Pointer(&here)) != before
		}()
		if <-moved {
			t.Fatal("the stack grew after makeRoom")
		}
	}
}

func BenchmarkMakeRoom(b *testing.B) {
	for b.Loop() {
		makeRoom() // where there is room already
	}
}
