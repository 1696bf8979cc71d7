package fluid

import (
	"context"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"
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

// startingSize returns the stack that a goroutine starts with now, in bytes.
func startingSize() uint64 {
	s := []metrics.Sample{{Name: "/gc/stack/starting-size:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// However many goroutines there are, up to some hundred, they soon start with
// a stack that a query fits in, and with not much more.
func TestBallast(t *testing.T) {
	if strings.Contains(os.Getenv("GODEBUG"), "adaptivestackstart=0") {
		t.Skip("the runtime was told not to")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	defer done.Wait()
	defer cancel()
	b := newBallast()
	done.Go(func() { b.run(ctx) })
	for _, goroutines := range []int{5, 100, 5} {
		stop := make(chan struct{})
		for range goroutines {
			done.Go(func() {
				select {
				case <-stop:
				case <-ctx.Done():
				}
			})
		}
		deadline := time.Now().Add(20 * time.Second)
		// Twice in a row, so that the depth was not still on its way.
		for good := 0; good < 2; {
			runtime.GC()
			b.adjust()
			if size := startingSize(); size >= queryStack && size <= 2*queryStack {
				good++
				continue
			}
			good = 0
			if time.Now().After(deadline) {
				t.Fatalf("beside %d goroutines one starts with %d bytes, at a depth of %d frames", goroutines, startingSize(), b.frames)
			}
		}
		t.Logf("beside %d goroutines one starts with %d bytes, at a depth of %d frames", goroutines, startingSize(), b.frames)
		close(stop)
	}
}

// A server that runs has its ballast.
func TestServerHasBallast(t *testing.T) {
	if strings.Contains(os.Getenv("GODEBUG"), "adaptivestackstart=0") {
		t.Skip("the runtime was told not to")
	}
	a := newAgent(t)
	fill(t, a)
	serve(t, zoneFile, a).caughtUp()
	deadline := time.Now().Add(20 * time.Second)
	for {
		runtime.GC()
		if startingSize() >= queryStack {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("goroutines start with %d bytes, want at least %d", startingSize(), queryStack)
		}
	}
}
