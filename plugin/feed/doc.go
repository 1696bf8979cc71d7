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
// Decisions, with what was not chosen:
//
//   - The server pulls: it asks its Source what changed since the client's
//     position. A queue of events per client would need a bound, and a rule for
//     what to do beyond it; the state answers for any client at any distance.
//   - A batch is cut into parts for the 4 MiB limit of messages and applied as
//     a whole: positions between are no states that the server ever had,
//     because an entry carries only the last change to its key.
//   - The resume token is a position of the cluster, not of the connection or
//     of the agent's process, so a restarted agent, or another one of the
//     cluster, resumes a client.
//   - Content is compared by hash with each heartbeat at an equal position, so
//     that two histories under one generation (a data directory put back in
//     time) heal by themselves.
//   - Acknowledgements repeat with each heartbeat: a sink may move on by other
//     means, and learn later that what it has is durable.
//
// The package does not decide what is answered, does not keep state, and does
// not look into relay frames.
package feed
