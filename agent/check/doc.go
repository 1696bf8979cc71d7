// Package check runs the health checks of the instances of one node: HTTP, TCP
// and gRPC probes, and heartbeats that must not stay away. It tells of a status
// only when it changes. What a status means, and where it goes, is its
// caller's.
//
// A Runner may be used from any number of goroutines. Its callbacks come from
// goroutines of its own: reports one at a time for each instance, a removal
// beside them.
package check
