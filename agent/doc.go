// Package agent is the process beside each CoreDNS: it takes registrations
// over HTTP, commits them with Raft, and streams what is committed to the DNS
// server. It is the only package that wires the parts together; the parts do
// not know each other.
//
// Load reads a Config, New opens what the process owns (data directory, Raft,
// sockets) and starts it, Stop closes it in reverse order.
package agent
