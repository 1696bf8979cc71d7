package memnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var a1, a2 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")

func sleepFor(d time.Duration) { <-time.After(d) }

// streamPair returns both ends of a stream from a1 to a2.
func streamPair(t *testing.T, n *Network) (near, far net.Conn) {
	t.Helper()
	l, err := n.Host(a2).Listen(netip.AddrPortFrom(a2, 7946))
	if err != nil {
		t.Fatal(err)
	}
	near, err = n.Host(a1).Dial(t.Context(), netip.AddrPortFrom(a2, 7946))
	if err != nil {
		t.Fatal(err)
	}
	far, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		near.Close()
		far.Close()
		l.Close()
	})
	return near, far
}

func TestStreamKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.SetDelay(time.Millisecond, 5*time.Millisecond)
		n.SetLoss(0.2)
		near, far := streamPair(t, n)
		want := make([]byte, 2<<20)
		for i := range want {
			want[i] = byte(i * i >> 8)
		}
		go func() {
			for rest := want; len(rest) > 0; {
				k := min(len(rest), 10_007)
				if _, err := near.Write(rest[:k]); err != nil {
					t.Error(err)
				}
				rest = rest[k:]
			}
			near.(*Conn).CloseWrite()
		}()
		start := time.Now()
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v, want %d in order", len(got), err, len(want))
		}
		if time.Since(start) < 10*time.Millisecond {
			t.Errorf("it took %v only", time.Since(start))
		}
		if _, err := far.Write([]byte("back")); err != nil {
			t.Errorf("the other direction: %v", err)
		}
	})
}

func TestStreamDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := streamPair(t, New(1))
		start := time.Now()
		near.SetDeadline(start.Add(3 * time.Second))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		near.SetDeadline(time.Time{})
		near.SetWriteDeadline(time.Now().Add(time.Second))
		k, err := near.Write(make([]byte, 1<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || k < sendBuffer {
			t.Errorf("write: %d bytes, %v", k, err)
		}
		far.Close()
		near.SetWriteDeadline(time.Time{})
		if _, err := near.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write to a closed end: %v", err)
		}
		near.Close()
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read from the own closed end: %v", err)
		}
	})
}

// While hosts are parted streams stall, packets are lost and dials wait; after
// the heal what waited arrives.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.SetDelay(time.Millisecond, time.Millisecond)
		near, far := streamPair(t, n)
		from, err := n.Host(a1).ListenPacket(netip.AddrPortFrom(a1, 0))
		if err != nil {
			t.Fatal(err)
		}
		to, err := n.Host(a2).ListenPacket(netip.AddrPortFrom(a2, 7946))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			from.Close()
			to.Close()
		})
		n.Partition([]netip.Addr{a1})
		if _, err := near.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		if _, err := from.WriteToUDPAddrPort([]byte("lost"), netip.AddrPortFrom(a2, 7946)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := n.Host(a1).Dial(ctx, netip.AddrPortFrom(a2, 7946)); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("dial: %v after %v", err, time.Since(start))
		}
		sleepFor(time.Minute)
		n.Heal()
		start = time.Now()
		b := make([]byte, 10)
		k, err := far.Read(b)
		if err != nil || string(b[:k]) != "late" || time.Since(start) > retransmitMax {
			t.Errorf("read %q, %v, %v after the heal", b[:k], err, time.Since(start))
		}
		if _, err := from.WriteToUDPAddrPort([]byte("kept"), netip.AddrPortFrom(a2, 7946)); err != nil {
			t.Fatal(err)
		}
		k, src, err := to.ReadFromUDPAddrPort(b)
		if err != nil || string(b[:k]) != "kept" || src.Addr() != a1 {
			t.Errorf("packet %q from %v, %v", b[:k], src, err)
		}
		if s := n.Stats(); s.Lost != 1 {
			t.Errorf("%d packets lost, want 1", s.Lost)
		}
	})
}

func TestCutIsOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		near, far := streamPair(t, n)
		n.Cut(a1, a2)
		near.Write([]byte("x"))
		far.Write([]byte("y"))
		b := make([]byte, 1)
		if _, err := near.Read(b); err != nil || b[0] != 'y' {
			t.Errorf("read %q, %v", b, err)
		}
		far.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := far.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %q, %v across the cut", b, err)
		}
	})
}

func TestHostErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		h := n.Host(a1)
		at := netip.AddrPortFrom(a1, 80)
		l, err := h.Listen(at)
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			name string
			do   func() error
			want error
		}{
			{"port taken", func() error { _, err := h.Listen(at); return err }, syscall.EADDRINUSE},
			{"address of another host", func() error { _, err := h.Listen(netip.AddrPortFrom(a2, 1)); return err }, syscall.EADDRNOTAVAIL},
			{"nobody listens", func() error { _, err := h.Dial(t.Context(), netip.AddrPortFrom(a1, 81)); return err }, syscall.ECONNREFUSED},
			{"no such host", func() error { _, err := h.Dial(t.Context(), netip.AddrPortFrom(a2, 81)); return err }, syscall.EHOSTUNREACH},
			{"listener closed", func() error { l.Close(); _, err := l.Accept(); return err }, net.ErrClosed},
			{"port free again", func() error {
				l, err := h.Listen(at)
				if err == nil {
					err = l.Close()
				}
				return err
			}, nil},
		} {
			if err := tc.do(); !errors.Is(err, tc.want) {
				t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
			}
		}
	})
}
