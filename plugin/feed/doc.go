// Package feed is the protocol between an agent and the CoreDNS plugin beside
// it, both ends: committed state, and in relay mode gossip, over one gRPC
// stream on a unix socket.
//
// The client says where it is (a position, and in relay mode a vector of
// origins); the server answers with the changes since, or with a checksummed
// snapshot where it cannot tell them, and then with batches, each chained to
// the one before. The client acknowledges what it has applied.
//
// What the package promises:
//
//   - A sink sees only whole states that the server had, in order. A snapshot
//     is staged, counted and hashed before the sink sees it; a batch that does
//     not fit what was applied before is never handed on.
//   - A sink never goes backwards. A server that is behind its client says so
//     and waits.
//   - Nothing is buffered per client. A server looks at what a client has and
//     sends the difference to now, so a slow client gets fewer, larger
//     batches, and can hurt itself only.
//   - A lost connection changes nothing on the client's side; it reconnects
//     for ever, with a jittered pause of 50 ms to 2 s, or up to 10 s where it
//     was refused.
//
// The package does not decide what is answered, does not keep state, and does
// not look into relay frames.
package feed
