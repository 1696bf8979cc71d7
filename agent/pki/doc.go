// Package pki makes and uses the keys of a cluster of agents: a certificate
// authority for people who have none, certificates that carry who an agent is,
// join secrets and operator tokens, and a Reloader that keeps the TLS settings
// of a running agent equal to the files on disk.
//
// Who an agent is stands in its certificate as a URI (RFC 5280 section
// 4.2.1.6), either the random id of its Raft server or its name (RAFT_ID):
//
//	urn:fluid:server:3f0c8a1e-…    only the server with this id
//	urn:fluid:name:node1           the server that has this name
//
// A certificate by id dies with the data directory that holds the id; one by
// name can be issued before the agent first starts. Certificates of any other
// authority work too, as long as they carry one of the two. The authority of
// Raft must not be one that the public can ask for certificates: whoever holds
// such a certificate is a server of the cluster.
//
// TLS is 1.3 only, without resumption, so that every connection is checked
// against the files as they are now.
//
// Time is an argument everywhere. The package starts no goroutine; Reloader.Run
// is the caller's to start.
package pki
