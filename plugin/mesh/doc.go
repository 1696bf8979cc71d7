// Package mesh is the gossip group that carries catalog deltas between
// members: agents, which write an origin each, and DNS servers, which only
// read and pass on.
//
// Three implementations stand behind one interface. inmemory is a hub inside
// one process, for development and tests. memberlist lets that library carry
// membership and data. crdt uses it for membership and failure detection only
// and moves the catalog over streams of its own.
//
// What a member lacks it pulls, by watermarks. Content that is not what its owner
// wrote although nothing is lacking, after a fault of memory or program, is found
// by hashes and taken anew (crdt). Beacons of the owners measure how long changes
// take to arrive. A restarted member is believed at once by those that held it
// dead, because it begins above every incarnation that it used.
//
// A mesh never blocks its caller on the network, and bounds what it keeps of
// any peer. It takes catalog data from whoever holds the gossip key; committed
// state it takes from anybody too, but only under the seal of the cluster
// whose id it was configured with.
package mesh
