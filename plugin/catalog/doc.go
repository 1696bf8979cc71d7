// Package catalog holds what one member knows and says how two members'
// knowledge becomes one.
//
// A Catalog has one committed slot, the state that Raft agreed on up to a
// position, and any number of origins, each the gossip of one agent. A view of
// a service is computed from both on demand; it is an immutable value that
// shares the encoded records with the catalog.
//
// The package is pure. It starts no goroutine and reads no clock, socket,
// file or random number: times and identities are arguments, so that equal
// calls give equal results everywhere. A Catalog is not safe for concurrent
// use; its owner serialises the calls. Views, once returned, may be read from
// any goroutine.
package catalog
