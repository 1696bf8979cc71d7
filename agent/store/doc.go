// Package store holds what a cluster of agents has agreed on: critical
// services and their instances, overlays and fences, replicated by Raft.
//
// A Store is one Raft server. Writes go through the leader's log and are
// applied, in log order, by a deterministic state machine to a State, an
// immutable value behind one atomic pointer. Reading the State never blocks
// and never waits for a disk, a lock or the network; it is what this server
// has applied, which can be behind the leader.
//
// Consistency. A write that returned without error is committed: a majority
// of the voters has it on disk. A write that returned ErrUnavailable was not
// done and never will be; one that returned ErrUnknown may or may not be done,
// and is safe to repeat with the same idempotency key. A State never goes
// backwards in a running server, and a server that restarts comes back with
// at least what it had applied, quorum or not.
//
// Concurrency. All methods of Store and State may be called from any
// goroutine. Values they return are never written to again.
//
// The package opens no listener besides the transport it is given, reads no
// environment and speaks no HTTP.
package store
