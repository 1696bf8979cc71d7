// Package raftnet is the stream layer of Raft's transport: mutual TLS and
// addressed connections.
//
// Every connection begins with a preamble in which the dialer says which
// cluster it belongs to, which server it wants and which one it is; the
// listener answers whether it is that server, and closes the connection if
// not, before the first RPC. An address alone does not say who listens there:
// a server may have come back with an empty disk, or another one may have got
// its address, and Raft must never take their answers for those of the server
// it knows. This holds with and without TLS. With TLS, certificates prove what
// the preamble claims (see package pki).
//
//	dialer                                listener
//	TLS 1.3, ALPN fluid-raft/1 (where configured)
//	"FLUIDR" version length body  ───▶    for me? of my cluster? proven?
//	                              ◀───    "FLUIDR" version length body
//	Raft's RPCs                   ◀──▶
//
// Raft itself knows servers by id and address, but tells its stream layer only
// the address. So Layer is also Raft's ServerAddressProvider, and makes
// addresses of the form ID@HOST:PORT; by them the transport's pool of
// connections keeps two servers apart that had the same address one after the
// other. NewTransport puts the two together.
//
// What a stranger can make a listener do is bounded: how many connections wait
// in their handshake, in all and per host, for how long, and how much of each
// is read. Close closes all connections, those that Raft holds included: its
// transport leaves them open.
package raftnet
