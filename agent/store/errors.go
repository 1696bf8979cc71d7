package store

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/hashicorp/raft"
)

// Outcomes of a write. Every error of a write wraps exactly one of them, or a
// *record.FieldError for a record that is not valid.
var (
	// ErrNotFound is returned when the thing to change does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict is returned when the write contradicts what is committed.
	ErrConflict = errors.New("conflict")
	// ErrPrecondition is returned when If-Match names another index.
	ErrPrecondition = errors.New("precondition failed")
	// ErrKeyReused is returned for an idempotency key that was used before
	// with another request.
	ErrKeyReused = errors.New("idempotency key reused")
	// ErrTooManyKeys is returned when so many idempotency keys are remembered
	// that no further one is accepted.
	ErrTooManyKeys = errors.New("too many idempotency keys")
	// ErrTooLarge is returned for a batch or a request above its limit.
	ErrTooLarge = errors.New("too large")
	// ErrQuota is returned when the cluster's quota of instances or bytes is used up.
	ErrQuota = errors.New("quota exceeded")
	// ErrDiskFull is returned when the disk has no room for a log entry. The
	// write was not done.
	ErrDiskFull = errors.New("disk full")
	// ErrUnavailable is returned when no leader with a quorum took the write.
	// The write was not done.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnknown is returned when it is not known whether the write was done.
	ErrUnknown = errors.New("outcome unknown")
	// ErrInvalid is returned for a request that can never be accepted.
	ErrInvalid = errors.New("invalid request")
)

// Errors of opening and running a store.
var (
	// ErrLocked is returned by Open when another agent uses the data directory.
	ErrLocked = errors.New("data directory is in use")
	// ErrCorrupt is returned by Open when a file of the data directory is damaged.
	ErrCorrupt = errors.New("data directory is damaged")
	// ErrOtherCluster is returned when the state belongs to another cluster.
	ErrOtherCluster = errors.New("state of another cluster")
	// ErrStopped is returned once the state machine has stopped, see Store.Err.
	ErrStopped = errors.New("state machine stopped")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("store is closed")
)

// NotLeaderError is returned by writes and linearizable reads on a server that
// is not the leader. It wraps ErrUnavailable.
type NotLeaderError struct {
	// Leader is the leader as far as this server knows, zero if it knows none.
	Leader Server
}

// Error names the leader.
func (e *NotLeaderError) Error() string {
	if e.Leader.ID == "" {
		return "no leader is known; retry when the cluster has a quorum"
	}
	return fmt.Sprintf("server %s at %s is the leader", e.Leader.ID, e.Leader.Addr)
}

// Unwrap returns ErrUnavailable.
func (e *NotLeaderError) Unwrap() error { return ErrUnavailable }

// refusals are the sentinels that the state machine itself decides, by their
// code in an encoded outcome. The codes are part of the protocol between
// servers; never renumber them.
var refusals = map[uint64]error{
	1: ErrNotFound, 2: ErrConflict, 3: ErrPrecondition, 4: ErrKeyReused,
	5: ErrTooManyKeys, 6: ErrTooLarge, 7: ErrQuota, 8: ErrInvalid,
}

// refuse returns an error that wraps a sentinel: what is wrong, on which field,
// and what would be accepted.
func refuse(sentinel error, format string, args ...any) error {
	return &refusal{sentinel: sentinel, text: fmt.Sprintf(format, args...)}
}

// refusal is a write that the state machine did not accept.
type refusal struct {
	sentinel error
	text     string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.sentinel }

// raftOutcome maps an error of a Raft future to an outcome. Only errors that
// Raft gives before an entry can have reached a log are certain.
func raftOutcome(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case isDiskFull(err):
		// The entry may have reached a part of the log that survives.
		return fmt.Errorf("%w: write log entry: %w", ErrUnknown, err)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// refusalCode returns the code of the sentinel that err wraps.
func refusalCode(err error) uint64 {
	for code, sentinel := range refusals {
		if errors.Is(err, sentinel) {
			return code
		}
	}
	return 8 // ErrInvalid
}
