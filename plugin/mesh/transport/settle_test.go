package transport

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestSettle exchanges states with one member when many appear together, once,
// and not when single ones come and go.
func TestSettle(t *testing.T) {
	for _, tc := range []struct {
		name          string
		known, appear int
		apart         time.Duration // from one to the next
		want          int           // joins in the next minute
	}{
		{"one", 50, 1, 0, 0},
		{"half of a mesh", 50, 50, time.Millisecond, 1},
		{"the first members of a new one", 0, 3, 0, 1},
		{"a few of a large mesh", 200, 8, 0, 0},
		{"one by one", 10, 20, 4 * time.Second, 0},
		{"more and more", 50, 300, 50 * time.Millisecond, 6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				joins := 0
				r, err := NewRejoiner(RejoinConfig{Join: func(string) error {
					mu.Lock()
					defer mu.Unlock()
					joins++
					return nil
				}})
				if err != nil {
					t.Fatal(err)
				}
				alive := func(n int) {
					r.Alive(MemberID(fmt.Sprint("m", n)), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 7946))
				}
				for i := range tc.known {
					alive(i)
				}
				select { // those were there before
				case <-r.stir:
				default:
				}
				<-time.After(2 * settleWindow)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go r.Run(ctx)
				for i := range tc.appear {
					alive(1000 + i)
					if tc.apart > 0 {
						<-time.After(tc.apart)
					}
				}
				<-time.After(time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if tc.want < 2 && joins != tc.want || tc.want > 1 && (joins < 2 || joins > tc.want+2) {
					t.Errorf("%d joins, want %d", joins, tc.want)
				}
			})
		})
	}
}
