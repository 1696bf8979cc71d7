// Package transport is the network under the gossip mesh: one port for TCP and
// UDP that carries memberlist's packets and exchanges and Fluid's own frame
// streams. It knows nothing of what packets and frames mean.
//
// # Who may talk
//
// The members of a mesh share a Keyring. Packets are sealed with AES-GCM under
// a key that each process derives from the ring's first key; a receiver drops
// what it has seen before. A stream of either kind is TLS 1.3 with throwaway
// certificates, and before anything else each side proves that it holds a key
// of the ring by an HMAC over the TLS exporter, its role, the cluster label and
// its member id. Any key both sides hold will do, so that keys are exchanged
// at run time: add the new one at every member, use it at every member, remove
// the old one. Open streams prove keys again when the ring changes and end
// when the last key they proved has left it.
//
// Who holds a key is trusted to be any member: ids are bound to the connection,
// not to a person. What a member may claim is decided above, in the catalog.
//
// Without a Keyring everything goes in clear (packets) or unproven (streams),
// explicitly: members with and without keys refuse each other.
//
// # What is bounded
//
// Connections that have proved nothing (in number, per address and in time),
// streams, frames (4 MiB, expanding at most 100 times), queues for each peer
// and in total, the senders whose packets are remembered. Every drop is counted
// by its Reason; nothing is logged above debug level but a panic.
//
// # Not done here
//
// Delivery is at most once. A recorded packet is accepted once by a process
// that has not seen it, such as one that has just started; incarnations and
// sequence numbers above make that harmless. Frames on streams cannot be
// replayed.
package transport
