package feed

import (
	"errors"
	"iter"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// The range of protocol numbers that this package speaks.
const (
	ProtocolMin = 1
	ProtocolMax = 1
)

// DefaultHeartbeat is how often a server says that it is there. A client that
// hears nothing for three times as long reconnects.
const DefaultHeartbeat = time.Second

// RelayImplementation is the gossip implementation of a client that has no
// gossip of its own. It fits every server.
const RelayImplementation = ""

var (
	// ErrProtocol is returned when client and server have no protocol number
	// in common.
	ErrProtocol = errors.New("feed protocol mismatch")
	// ErrCluster is returned when client and server belong to different
	// clusters.
	ErrCluster = errors.New("cluster mismatch")
	// ErrImplementation is returned when client and server run different
	// gossip implementations.
	ErrImplementation = errors.New("gossip implementation mismatch")
	// ErrPeer is returned when the socket's permissions or the server refuse
	// the user that the client runs as.
	ErrPeer = errors.New("not allowed on the feed socket")
	// ErrBusy is returned when a server has no room for another client, or
	// the member id is connected already.
	ErrBusy = errors.New("feed refused")
	// ErrInvalid is returned for anything that a correct peer does not send.
	ErrInvalid = errors.New("invalid feed message")
	// ErrDiverged is returned when client and server hold different content
	// at one position. The client repairs it with a snapshot.
	ErrDiverged = errors.New("content differs from the agent's")
	// ErrSilent is returned when a server missed three heartbeats.
	ErrSilent = errors.New("no heartbeat from the agent")
	// ErrSink is returned when the sink refused what it was given.
	ErrSink = errors.New("not applied")
	// ErrInUse is returned by Listen when another process serves the socket.
	ErrInUse = errors.New("socket in use")
)

// State is one committed state: a snapshot that later writes do not change.
// All methods may be called from several goroutines at once.
type State interface {
	// Position is the position of the state, zero if nothing is committed or
	// restored yet. A state at the zero position is never sent.
	Position() record.Position
	// Hash is the content hash of the live entries: the sum modulo 2^64 of
	// catalog.EntryHash.
	Hash() uint64
	// ClusterID is the id of the cluster, "" if it is not known yet.
	ClusterID() string
	// Entries yields every live entry of a kind that travels, each key once,
	// in any order.
	Entries() iter.Seq[record.Entry]
	// Since returns the entries, live and deleted, that changed after pos.
	// It returns false when it cannot tell: another generation, or a position
	// below the floor of the tombstones that are kept. The caller does not
	// change the result.
	Since(pos record.Position) ([]record.Entry, bool)
}

// Status is what a heartbeat says besides the state.
type Status struct {
	Commit      record.Position // the last committed position known
	LeaderKnown bool
	Lag         time.Duration // since the leader was last heard; 0 on the leader
}

// Source is the committed state of an agent. The server calls it from one
// goroutine per client; no method may block for long.
type Source interface {
	// State returns the current state.
	State() State
	// Changed returns a channel that is closed once the position is beyond
	// after, immediately if it is already.
	Changed(after record.Position) <-chan struct{}
	// Status returns what a heartbeat says besides the state.
	Status() Status
}

// Watermark says that everything of an origin's epoch up to Seq is known.
type Watermark struct {
	Origin record.OriginID
	Epoch  uint64
	Seq    uint64
}

// Vector is what a member knows of the mesh: one watermark per origin, in any
// order.
type Vector []Watermark

// Relay is the gossip knowledge of an agent, for plugins that do not gossip.
// The server calls it from one goroutine per client.
type Relay interface {
	// Since returns the frames that bring a member that knows have to what is
	// known now, in the order to apply them, and what is known now, together
	// with a version that Changed takes. Frames are at most MaxRelayFrame
	// bytes and opaque to the feed; the caller does not change them.
	Since(have Vector) (frames iter.Seq[[]byte], now Vector, version uint64)
	// Changed returns a channel that is closed once there is more to know
	// than at version, immediately if there is already.
	Changed(version uint64) <-chan struct{}
}

// Hello is what a sink says about itself.
type Hello struct {
	Position  record.Position // applied; zero if nothing is
	Hash      uint64          // content hash at Position, compared with the server's; 0 if not known
	ClusterID string          // "" if not known
	Vector    Vector          // gossip known; read only when connecting, in relay mode
	ClientTTL time.Duration   // largest TTL that caches behind this member can hold
	Zones     []string        // zones that are served
	// Volatile says that a restart would lose Position, although the sink was
	// set up to keep it. It is resumed from, but not acknowledged.
	Volatile bool
}

// Heartbeat is what a server says about itself.
type Heartbeat struct {
	ClusterID   string          // "" if not known
	Commit      record.Position // the last committed position known
	Applied     record.Position // the position of the server's state
	Hash        uint64          // content hash at Applied
	LeaderKnown bool
	Lag         time.Duration // since the leader was last heard
	Behind      bool          // the server's state is older than the client's
}

// Sink takes what a client receives. All calls come from one goroutine, and
// the client reads nothing while one runs, so a sink that is slow slows only
// its own feed. A sink that panics is treated as one that returned an error.
// A sink that has something newer by other means (the mesh) ignores an older
// Snapshot or Apply and returns nil.
type Sink interface {
	// Hello says where the sink is. It is called before each connection, and
	// for the acknowledgement after each heartbeat, Snapshot and Apply.
	Hello() Hello
	// Snapshot replaces the committed state. The content was checked against
	// hash. When it returns nil the state is visible, durable where that was
	// asked for (else Hello says Volatile), and acknowledged. Entries may be
	// read once, during the call.
	Snapshot(pos record.Position, entries iter.Seq[record.Entry], hash uint64) error
	// Apply changes the committed state from prev to pos, all or nothing. The
	// sink owns entries. What holds for Snapshot holds when it returns nil.
	// An error makes the client reconnect and say Hello again; if that is
	// still at prev, it asks for a snapshot.
	Apply(prev, pos record.Position, entries []record.Entry) error
	// Heartbeat is called for each heartbeat, and once right after connecting.
	Heartbeat(hb Heartbeat)
	// Relay applies one catalog frame, which the sink owns. An error makes the
	// client reconnect.
	Relay(frame []byte) error
	// State is called when a connection is made (true, nil), and with the
	// reason when it is lost or could not be made, once per different reason.
	State(connected bool, err error)
}
