package store

import "context"

// lock is a mutex that is held while waiting for others: for Raft to stop, or
// for a change of the configuration to commit. Unlike with sync.Mutex, who
// waits for it can give up, and counts as blocked in a synctest bubble, so that
// the fake time goes on which the holder waits for.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) acquire() { l <- struct{}{} }

// acquireContext returns the error of ctx, if that is done before it has the lock.
func (l lock) acquireContext(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lock) release() { <-l }
