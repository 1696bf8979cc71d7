package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// tries is a Forwarder whose first try may have reached the leader, while no
// later one did.
func tries(n *int) Forwarder {
	return carry(func(context.Context, Server, []byte) ([]byte, error) {
		if *n++; *n == 1 {
			return nil, errors.New("the leader died")
		}
		return nil, fmt.Errorf("%w: nobody is there", ErrUnavailable)
	})
}

// perhaps writes with an idempotency key, so that it is tried again, and fails
// the test unless the answer says that the first try may have been done.
func perhaps(t *testing.T, w *writes, n *int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := w.Register(ctx, Meta{IdempotencyKey: "once"}, []record.Instance{instance("web", "10.0.0.1")})
	if !errors.Is(err, ErrUnknown) || errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnknown", err)
	}
	if *n < 2 {
		t.Errorf("tried %d times", *n)
	}
}

func TestForwardOnceUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		l := c.settle(3)
		for _, s := range c.live() {
			if s != l {
				n := 0
				s.remote.forwarder = tries(&n)
				perhaps(t, &s.writes, &n)
			}
		}
	})
}

func TestClientOnceUnknown(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	n := 0
	c := openClient(t, t.TempDir(), s, func(cfg *ClientConfig) { cfg.Forwarder = tries(&n) })
	if err := c.Learn(told(s)); err != nil {
		t.Fatal(err)
	}
	perhaps(t, &c.writes, &n)
}

// A reply that makes no sense says nothing of what became of a write.
func TestForwardGarbledReply(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	c := openClient(t, t.TempDir(), s, func(cfg *ClientConfig) {
		cfg.Forwarder = carry(func(context.Context, Server, []byte) ([]byte, error) {
			return record.AppendElem(nil, 3, []byte{0xff}), nil
		})
	})
	if err := c.Learn(told(s)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Deregister(t.Context(), Meta{}, "web"); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v, want ErrUnknown", err)
	}
}
