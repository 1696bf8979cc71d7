package fluid

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin/pkg/fall"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/fluid-sd/fluid/plugin/answer"
	"github.com/fluid-sd/fluid/plugin/mesh/transport"
)

// Defaults of the options.
const (
	defaultTTL            = 5
	defaultNegativeTTL    = 2
	defaultCapacity       = 1_000_000
	defaultDenial         = 10_000
	defaultStartupTimeout = 5 * time.Second
	defaultGossipPort     = "7947"
	maxTTL                = 3600
)

// forever is the serve_stale of a block that never stops answering.
const forever = time.Duration(-1)

// Gossip implementations. The empty one takes everything from the agent.
const (
	gossipRelay      = ""
	gossipInMemory   = "inmemory"
	gossipMemberlist = "memberlist"
	gossipCRDT       = "crdt"
)

// process is what the directives of one Corefile say about the whole process.
// It is compared option by option between blocks and across reloads.
type process struct {
	Agent          string // path of the feed socket
	Cluster        string
	Capacity       int
	Denial         int
	StartupTimeout time.Duration
	Snapshot       string // path; empty: none

	Gossip            string
	GossipAddress     string
	GossipNode        string
	GossipAdvertise   string
	GossipSeeds       []string
	GossipKeys        [][]byte // the first encrypts
	GossipKeyFiles    []string // where they came from
	GossipLabel       string
	GossipAllow       []netip.Prefix
	GossipCompression bool
	GossipInsecure    bool

	network transport.Network // of the mesh, in tests; nil: the operating system's
}

// block is what one directive says about its own zones.
type block struct {
	zones      []*answer.Zone // longest origin first
	staleFor   time.Duration  // how long stale answers go on, or forever
	staleTTL   uint32
	why        []netip.Prefix
	fall       fall.F
	neighbours []string                  // plugins in the block that work against this one; set by OnStartup
	transfer   *transfer.Transfer        // nil without that plugin; set by OnStartup
	served     atomic.Pointer[[]*served] // zones as the engine serves them, in the same order
}

func defaultProcess() process {
	return process{
		Agent: defaultSocket(), Capacity: defaultCapacity, Denial: defaultDenial,
		StartupTimeout: defaultStartupTimeout, GossipNode: defaultNode(),
	}
}

// defaultSocket returns where an agent with default settings listens.
func defaultSocket() string {
	if s := os.Getenv("FLUID_SOCKET"); s != "" {
		return s
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); os.Geteuid() != 0 && dir != "" {
		return filepath.Join(dir, "fluid", "agent.sock")
	}
	return "/run/fluid/agent.sock"
}

// defaultNode returns the first label of the host's name, and "-dns".
func defaultNode() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	return host + "-dns"
}

// immutable are the options that a reload cannot change, because the running
// mesh member and feed client were made with them; those after the third count
// only for a member. Seeds and keys can change, but a mesh cannot begin to
// encrypt, or end to, one member at a time.
var immutable = []string{"agent", "gossip", "gossip_node", "gossip_label", "gossip_advertise", "gossip_allow", "gossip_compression", "gossip_key"}

// changed returns which immutable options differ.
func (p *process) changed(q *process) []string {
	var names []string
	for _, name := range immutable {
		var same bool
		switch name {
		case "agent":
			same = p.Agent == q.Agent
		case "gossip":
			same = p.Gossip == q.Gossip && p.GossipAddress == q.GossipAddress
		case "gossip_node":
			same = p.GossipNode == q.GossipNode
		case "gossip_label":
			same = p.GossipLabel == q.GossipLabel || !p.meshed()
		case "gossip_advertise":
			same = p.GossipAdvertise == q.GossipAdvertise || !p.meshed()
		case "gossip_allow":
			same = slices.Equal(p.GossipAllow, q.GossipAllow) || !p.meshed()
		case "gossip_compression":
			same = p.GossipCompression == q.GossipCompression || !p.meshed()
		case "gossip_key":
			same = (len(p.GossipKeys) == 0) == (len(q.GossipKeys) == 0) || !p.meshed()
		}
		if !same {
			names = append(names, name)
		}
	}
	return names
}

// setting is a process-wide option as one block gives it.
type setting struct {
	args  []string // as written
	where string   // FILE:LINE
	apply func(*process)
}

// settings are the process-wide options that the blocks of one Corefile give.
type settings map[string]setting

// merge adds the options of another block. Giving an option twice with
// different values is an error.
func (s settings) merge(more settings) error {
	for name, set := range more {
		old, ok := s[name]
		if ok && !slices.Equal(old.args, set.args) {
			return fmt.Errorf("%s: option %s is %q here and %q at %s, but belongs to the whole process; give it once, or the same everywhere",
				set.where, name, strings.Join(set.args, " "), strings.Join(old.args, " "), old.where)
		}
		s[name] = set
	}
	return nil
}

// process returns the options with defaults for those that no block gives.
func (s settings) process() process {
	p := defaultProcess()
	for _, set := range s {
		set.apply(&p)
	}
	return p
}

// validate reports combinations of options that cannot work.
func (p *process) validate() error {
	if !p.meshed() || p.GossipInsecure || len(p.GossipKeys) > 0 {
		return nil
	}
	for _, addr := range []string{p.GossipAddress, p.GossipAdvertise} {
		if addr != "" && !loopback(addr) {
			return fmt.Errorf("gossip on %s would accept records from anybody who reaches it; give gossip_key, or gossip_insecure to allow that", addr)
		}
	}
	return nil
}

func loopback(hostport string) bool {
	ap, err := netip.ParseAddrPort(hostport)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}
