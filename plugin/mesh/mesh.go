package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh/transport"
	"github.com/fluid-sd/fluid/plugin/record"
)

var (
	// ErrClosed is returned by every method of a mesh after Leave or Close.
	ErrClosed = errors.New("mesh: closed")
	// ErrNoMember is returned by Join when no address led to a member.
	ErrNoMember = errors.New("mesh: no member reached")
	// ErrKey is returned for a key of the wrong length, or for a change to a
	// key ring that it does not allow.
	ErrKey = errors.New("mesh: key")
)

// Impl names an implementation.
type Impl string

// The implementations.
const (
	InMemory   Impl = "inmemory"
	Memberlist Impl = "memberlist"
	CRDT       Impl = "crdt"
)

// DefaultPort is the port of a gossip address that has none.
const DefaultPort = 7947

// maxID bounds the id of a member, in bytes.
const maxID = 64

// Role says what a member does.
type Role uint8

// The roles of a member.
const (
	RoleAgent Role = iota + 1 // writes an origin
	RoleDNS                   // answers queries
)

// String returns "agent" or "dns".
func (r Role) String() string {
	switch r {
	case RoleAgent:
		return "agent"
	case RoleDNS:
		return "dns"
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// State is what failure detection says of a member.
type State uint8

// The states of a member.
const (
	Alive State = iota + 1
	Suspect
	Dead
	Left
)

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Suspect:
		return "suspect"
	case Dead:
		return "dead"
	case Left:
		return "left"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Member is one member of the mesh. It is a value.
type Member struct {
	ID    string // durable; what headers list
	Name  string // for people
	Addr  string // host:port of its gossip
	Role  Role
	State State
	Zone  string
	Since time.Time // of the state, by this member's clock
}

// Replica holds the catalog that a mesh keeps in step with the others'.
//
// Update runs f with exclusive access to the catalog, then makes the changes
// that f returns visible to readers. The mesh calls it from its own
// goroutines, one at a time, and never while it is inside a call of the
// caller. f does not block. The catalog must not be kept.
type Replica interface {
	Update(f func(*catalog.Catalog) catalog.Changes)
}

// Config configures a member. Zero values are defaults unless said otherwise.
type Config struct {
	Impl    Impl
	ID      string // required: durable and unique, at most 64 bytes
	Name    string // default: ID
	Role    Role   // required
	Zone    string
	Replica Replica // required

	// Cluster is the id of the cluster whose committed state is taken from the
	// mesh. It must come from the agent beside the member or from its
	// configuration. Empty: none is taken, and none is passed on.
	Cluster string

	// State is the file in which the member keeps how often it began, so that
	// members which hold it dead believe the next process at once. Empty: it
	// goes by the clock, as a member must whose id is new each time.
	State string

	Bind        string   // host:port; port 0 lets the kernel choose
	Advertise   string   // host:port, where it differs from Bind
	Seeds       []string // host:port; looked up again at each attempt
	Label       string   // keeps meshes apart
	Keys        [][]byte // 16, 24 or 32 bytes each; the first encrypts, all decrypt
	Allow       []netip.Prefix
	Compression bool
	Insecure    bool // a bind that other hosts can reach needs no key

	// Hub is the group of an in-memory member. Default: one per process.
	Hub *Hub
	// Network replaces the operating system's sockets in tests.
	Network transport.Network

	// OnMember is called when a member appears or changes state. It must not
	// block or call the mesh.
	OnMember func(Member)
	// OnClone is called when somebody else writes this member's origin: it must
	// take a new identity. It must not block or call the mesh.
	OnClone func(record.OriginID)

	Logger *slog.Logger // default: discards
}

// Mesh is one member's end of the gossip group. Its methods may be called from
// any goroutine, but not while the caller holds what Replica.Update waits for.
type Mesh interface {
	// Self returns this member.
	Self() Member
	// Members returns every member known, this one included, sorted by id.
	Members() []Member

	// Join contacts members at the given addresses and returns how many
	// answered. It blocks until each was tried or ctx is done, and returns
	// ErrNoMember if none answered. The mesh goes on trying its seeds, and
	// members it lost, by itself.
	Join(ctx context.Context, addrs []string) (int, error)

	// Publish passes on a delta that the caller's catalog holds already. It
	// does not block; what a peer misses is repaired later.
	Publish(d catalog.Delta)
	// Commit passes on committed state that the caller's catalog holds
	// already. It does not block.
	Commit(b catalog.Batch)
	// SetCluster sets the id of the cluster whose committed state is taken and
	// passed on, for a member that learns it after its start. See
	// Config.Cluster.
	SetCluster(id string)
	// Confirm blocks until at least k other members are known to hold what the
	// head says, or ctx is done. It returns how many do.
	Confirm(ctx context.Context, head catalog.Head, k int) (int, error)

	// Report sets what this member answers when it is asked how far DNS members
	// are: a DNS member about itself, an agent about those at its socket. It
	// does not block.
	Report(reports []Report)
	// Applied asks members, by their ids, for their reports. It blocks until
	// every one of them said that all of its are at the position or beyond, or
	// ctx is done, and returns what they said last. The reports are not proven:
	// who has a key of the mesh can make them up.
	Applied(ctx context.Context, at record.Position, ids []string) []Report

	// Keys returns the ids of the keys, the encrypting one first.
	Keys() []string
	// SetKeys replaces the key ring: the first key encrypts, all decrypt.
	SetKeys(keys [][]byte) error

	// Stats returns counters since the start.
	Stats() Stats

	// Leave tells the others that this member goes, and closes. Its origin
	// counts as dead at once.
	Leave(ctx context.Context) error
	// Close stops without a word, as a restart does. It is idempotent.
	Close() error
}

// Stats are counters of one member since its start, for metrics.
type Stats struct {
	FramesIn, FramesOut uint64
	BytesIn, BytesOut   uint64
	Pulls               uint64            // requests sent
	Resets              uint64            // full histories taken in
	Mismatches          uint64            // origins found to hold other records than their owners or peers, or than was taken in
	Repairs             uint64            // of these, taken anew
	Dropped             map[string]uint64 // frames and deltas dropped, by reason
	Propagation         Histogram         // ages of beacons: how long changes take to get here, by the clocks of both ends
	LastFrame           time.Time         // when the last frame came; zero: none did
}

// New starts a member. It calls Replica.Update before it returns. It returns an
// error that names the field for a configuration that cannot work.
func New(cfg Config) (Mesh, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	switch cfg.Impl {
	case InMemory:
		return newMember(cfg)
	case Memberlist, CRDT:
		return newGossip(cfg)
	}
	return nil, fmt.Errorf("mesh: implementation %q is not one of inmemory, memberlist, crdt", cfg.Impl)
}

func (cfg *Config) check() error {
	switch {
	case cfg.ID == "" || len(cfg.ID) > maxID:
		return fmt.Errorf("mesh: id %q: use 1 to 64 bytes", cfg.ID)
	case cfg.Role != RoleAgent && cfg.Role != RoleDNS:
		return fmt.Errorf("mesh: role: use agent or dns")
	case cfg.Replica == nil:
		return errors.New("mesh: replica: is missing")
	}
	if _, err := ring(cfg.Keys); err != nil {
		return err
	}
	if cfg.Name == "" {
		cfg.Name = cfg.ID
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
