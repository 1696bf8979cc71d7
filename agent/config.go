package agent

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Addresses used where the configuration names none. An address that is left
// empty in Config and taken on this host moves to the next free port.
const (
	DefaultHTTPBind   = "127.0.0.1:18080"
	DefaultRaftBind   = "127.0.0.1:11000"
	DefaultGossipBind = "127.0.0.1:7946"
)

// maxCopies bounds how many copies of snapshots are kept.
const maxCopies = 100_000

// Config is everything an agent can be told. Default fills in the values that
// have one; Load reads the rest from flags, the environment and a YAML file.
// The koanf tag is the YAML key; see Load for the names of flags and
// variables.
type Config struct {
	Node        string `koanf:"node"`         // name of this node, a label; empty: first label of the host name
	Zone        string `koanf:"zone"`         // failure domain, a label
	DataDir     string `koanf:"data_dir"`     // empty: see DataDirOrDefault
	Socket      string `koanf:"socket"`       // feed socket; empty: see SocketOrDefault
	ServicesDir string `koanf:"services_dir"` // not built into this version: must be empty

	HTTPBind string `koanf:"http_bind"` // host:port; empty: DefaultHTTPBind, or the next free port
	// HTTPAdvertise is where other agents reach HTTPBind; empty: the same.
	HTTPAdvertise string `koanf:"http_advertise"`
	// Token guards the HTTP interface of HTTPBind; empty: open, which is
	// accepted on a loopback address only, unless Insecure.
	Token string `koanf:"token"`
	// Certificate and key of the HTTP interface, PEM files; empty: plain HTTP.
	TLSCertFile string `koanf:"tls_cert_file"`
	TLSKeyFile  string `koanf:"tls_key_file"`
	// TLSCAFile holds the authorities of other agents' certificates, PEM;
	// empty: those of the system.
	TLSCAFile string `koanf:"tls_ca_file"`
	// Insecure lifts the rule that an address other hosts can reach needs keys.
	Insecure bool `koanf:"insecure"`

	LogLevel  string `koanf:"log_level"`  // debug, info, warn or error
	LogFormat string `koanf:"log_format"` // text or json

	Raft   RaftConfig   `koanf:",squash"`
	Gossip GossipConfig `koanf:",squash"`
}

// RaftConfig is the part of Config about tier 3.
type RaftConfig struct {
	Role       string `koanf:"raft"`      // auto, server or client
	Bind       string `koanf:"raft_bind"` // host:port; empty: DefaultRaftBind, or the next free port
	Advertise  string `koanf:"raft_advertise"`
	ID         string `koanf:"raft_id"` // name of the server, a label; empty: the node's name
	Bootstrap  *bool  `koanf:"raft_bootstrap"`
	JoinURL    string `koanf:"raft_join_url"`
	JoinSecret string `koanf:"raft_join_secret"`
	// Certificate, key and authority of the Raft transport, PEM files.
	TLSCertFile string `koanf:"raft_tls_cert_file"`
	TLSKeyFile  string `koanf:"raft_tls_key_file"`
	TLSCAFile   string `koanf:"raft_tls_ca_file"`

	SnapshotInterval  time.Duration `koanf:"raft_snapshot_interval"`
	SnapshotThreshold uint64        `koanf:"raft_snapshot_threshold"`

	// CopiesDir gets a copy of what is committed, every CopiesInterval if it
	// has changed; the newest CopiesKeep stay. Empty: none. A copy holds the
	// cluster's private key.
	CopiesDir      string        `koanf:"raft_snapshot_copies_dir"`
	CopiesInterval time.Duration `koanf:"raft_snapshot_copies_interval"`
	CopiesKeep     uint64        `koanf:"raft_snapshot_copies_keep"`
}

// GossipConfig is the part of Config about tier 2.
type GossipConfig struct {
	Impl      string   `koanf:"gossip_impl"` // inmemory, memberlist or crdt
	Bind      string   `koanf:"gossip_bind"` // host:port; empty: DefaultGossipBind, or the next free port
	Advertise string   `koanf:"gossip_advertise"`
	Node      string   `koanf:"gossip_node"` // empty: the node's name
	Seeds     []string `koanf:"gossip_seeds"`
	KeyHex    string   `koanf:"gossip_key_hex"` // comma list; the first encrypts, all decrypt
	// KeyFile is where Load found KeyHex, empty if not in a file. It is followed
	// and kept in step with the running ring.
	KeyFile     string   `koanf:"-"`
	Compression bool     `koanf:"gossip_compression"`
	Label       string   `koanf:"gossip_label"`
	Allow       []string `koanf:"gossip_allow"` // CIDRs
	// ReapAfter is how long a node is dead until the leader drops what it
	// registered for good.
	ReapAfter time.Duration `koanf:"gossip_reap_after"`
}

// Default returns the configuration of an agent that was told nothing.
func Default() Config {
	return Config{
		LogLevel:  "info",
		LogFormat: "text",
		Raft: RaftConfig{
			Role:              "auto",
			SnapshotInterval:  30 * time.Second,
			SnapshotThreshold: 1000,
			CopiesInterval:    time.Hour,
			CopiesKeep:        48,
		},
		Gossip: GossipConfig{Impl: "inmemory", ReapAfter: 72 * time.Hour},
	}
}

// exampleAddr is an address of each part, by the first word of its key.
var exampleAddr = map[string]string{"http": DefaultHTTPBind, "raft": DefaultRaftBind, "gossip": DefaultGossipBind}

// ConfigError reports one setting that cannot be used.
type ConfigError struct {
	Key     string // the YAML key
	Value   string
	Problem string
	Fix     string
}

// Error names the setting in its YAML and its environment spelling.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s (%s): %q %s; %s", e.Key, envName(e.Key), e.Value, e.Problem, e.Fix)
}

// Validate returns the joined *ConfigErrors of all settings that cannot be
// used, or nil. It opens no socket; of files it only checks the named ones.
func (c *Config) Validate() error {
	var errs []error
	bad := func(key, value, problem, fix string) {
		errs = append(errs, &ConfigError{Key: key, Value: value, Problem: problem, Fix: fix})
	}
	oneOf := func(key, value string, values ...string) {
		if !slices.Contains(values, value) {
			bad(key, value, "is not a choice", "use one of "+strings.Join(values, ", "))
		}
	}
	label := func(key, value string) {
		if value != "" && !record.IsLabel(value) {
			bad(key, value, "is not a label", "use lower-case letters, digits and inner hyphens, at most 63")
		}
	}
	oneOf("log_level", c.LogLevel, "debug", "info", "warn", "error")
	oneOf("log_format", c.LogFormat, "text", "json")
	oneOf("raft", c.Raft.Role, "auto", "server", "client")
	if c.ServicesDir != "" {
		bad("services_dir", c.ServicesDir, "cannot be used: files of instances are not built into this version",
			"leave it out and register with PUT /v1/services/SERVICE/instances/ID or fluidctl register --ephemeral")
	}
	label("node", c.Node)
	label("zone", c.Zone)
	label("raft_id", c.Raft.ID)
	label("gossip_node", c.Gossip.Node)
	for key, addr := range map[string]string{
		"http_bind": c.HTTPBind, "raft_bind": c.Raft.Bind, "gossip_bind": c.Gossip.Bind,
		"raft_advertise": c.Raft.Advertise, "gossip_advertise": c.Gossip.Advertise, "http_advertise": c.HTTPAdvertise,
	} {
		if addr == "" {
			continue
		}
		if err := checkHostPort(addr); err != nil {
			bad(key, addr, "is not an address: "+err.Error(), "use HOST:PORT, for example "+exampleAddr[key[:strings.IndexByte(key, '_')]])
		}
	}
	for i, seed := range c.Gossip.Seeds {
		if _, err := netip.ParseAddr(seed); err == nil || !strings.Contains(seed, ":") {
			continue // without a port
		}
		if err := checkHostPort(seed); err != nil {
			bad(fmt.Sprintf("gossip_seeds[%d]", i), seed, "is not an address: "+err.Error(), "use HOST:PORT, for example 10.0.0.1:7946")
		}
	}
	if u := c.Raft.JoinURL; u != "" {
		if p, err := url.Parse(u); err != nil || (p.Scheme != "http" && p.Scheme != "https") || p.Host == "" {
			bad("raft_join_url", u, "is not an agent's URL", "use http://HOST:18080 or https://HOST:18080")
		}
	}
	if c.Gossip.ReapAfter < time.Second {
		bad("gossip_reap_after", c.Gossip.ReapAfter.String(), "is too short", "use 1s or more, for example 72h")
	}
	if c.Raft.SnapshotInterval < 5*time.Millisecond {
		bad("raft_snapshot_interval", c.Raft.SnapshotInterval.String(), "is too short", "use 5ms or more, for example 30s")
	}
	if c.Raft.CopiesInterval < 5*time.Millisecond {
		bad("raft_snapshot_copies_interval", c.Raft.CopiesInterval.String(), "is too short", "use 5ms or more, for example 1h")
	}
	if c.Raft.CopiesKeep < 1 || c.Raft.CopiesKeep > maxCopies {
		bad("raft_snapshot_copies_keep", fmt.Sprint(c.Raft.CopiesKeep), "is out of range", fmt.Sprintf("use 1 to %d", maxCopies))
	}
	for i, s := range c.Gossip.Allow {
		if _, err := netip.ParsePrefix(s); err != nil {
			bad(fmt.Sprintf("gossip_allow[%d]", i), s, "is not a network", "use a CIDR such as 10.0.0.0/8")
		}
	}
	for _, b := range []struct{ key, bind, advertise string }{
		{"http", c.HTTPBind, c.HTTPAdvertise}, {"raft", c.Raft.Bind, c.Raft.Advertise},
	} {
		if host, _, err := net.SplitHostPort(b.bind); err == nil && b.advertise == "" && isUnspecified(host) {
			bad(b.key+"_advertise", "", "is missing, and "+b.bind+" says not where others reach it", "set it to HOST:PORT of this host")
		}
	}
	if c.Raft.Role == roleClient {
		switch {
		case c.Raft.Bootstrap != nil && *c.Raft.Bootstrap:
			bad("raft", c.Raft.Role, "contradicts raft_bootstrap (RAFT_BOOTSTRAP): a client forms no cluster", "leave one of them out")
		case !c.findsServers():
			bad("raft", c.Raft.Role, "cannot find a server", "set raft_join_url (RAFT_JOIN_URL), or gossip_seeds (GOSSIP_SEEDS) together with gossip_impl (GOSSIP_IMPL) crdt or memberlist")
		}
		if c.Raft.CopiesDir != "" {
			bad("raft_snapshot_copies_dir", c.Raft.CopiesDir, "cannot be filled by a client, which has no whole state", "set it on servers")
		}
	}
	errs = append(errs, c.validateGossip()...)
	errs = append(errs, c.validateSecurity()...)
	return errors.Join(errs...)
}

func (c *Config) validateGossip() []error {
	var errs []error
	switch c.Gossip.Impl {
	case "inmemory", "memberlist", "crdt":
	default:
		errs = append(errs, &ConfigError{"gossip_impl", c.Gossip.Impl, "is not a choice", "use one of inmemory, memberlist, crdt"})
	}
	if c.Gossip.KeyHex != "" {
		for i, k := range strings.Split(c.Gossip.KeyHex, ",") {
			b, err := hex.DecodeString(strings.TrimSpace(k))
			if err != nil || (len(b) != 16 && len(b) != 24 && len(b) != 32) {
				errs = append(errs, &ConfigError{ // never repeat a secret
					fmt.Sprintf("gossip_key_hex[%d]", i), "(secret)", "is not a key", "use 32, 48 or 64 hex digits: openssl rand -hex 32",
				})
			}
		}
	}
	return errs
}

// validateSecurity holds the rule that an address other hosts can reach needs
// keys, unless Insecure says otherwise.
func (c *Config) validateSecurity() []error {
	var errs []error
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		errs = append(errs, &ConfigError{"tls_cert_file", c.TLSCertFile, "is given without its pair", "set both tls_cert_file and tls_key_file"})
	}
	raftTLS := c.Raft.TLSCertFile != "" || c.Raft.TLSKeyFile != "" || c.Raft.TLSCAFile != ""
	if raftTLS && (c.Raft.TLSCertFile == "" || c.Raft.TLSKeyFile == "" || c.Raft.TLSCAFile == "") {
		errs = append(errs, &ConfigError{
			"raft_tls_cert_file", c.Raft.TLSCertFile, "is given without its company",
			"set all of raft_tls_cert_file, raft_tls_key_file and raft_tls_ca_file",
		})
	}
	if c.Insecure {
		return errs
	}
	if reachable(c.HTTPBind) && (c.TLSCertFile == "" || c.Token == "") {
		errs = append(errs, &ConfigError{
			"http_bind", c.HTTPBind, "can be reached from other hosts",
			"set tls_cert_file, tls_key_file and token_file, or bind to 127.0.0.1, or accept it with --insecure",
		})
	}
	if reachable(c.Raft.Bind) && !raftTLS {
		errs = append(errs, &ConfigError{
			"raft_bind", c.Raft.Bind, "can be reached from other hosts",
			"set raft_tls_cert_file, raft_tls_key_file and raft_tls_ca_file, or bind to 127.0.0.1, or accept it with --insecure",
		})
	}
	if reachable(c.Gossip.Bind) && c.Gossip.KeyHex == "" && c.Gossip.Impl != "inmemory" {
		errs = append(errs, &ConfigError{
			"gossip_bind", c.Gossip.Bind, "can be reached from other hosts",
			"set gossip_key_hex_file, or bind to 127.0.0.1, or accept it with --insecure",
		})
	}
	return errs
}

// ShouldBootstrap reports whether the agent forms a cluster of its own where
// there is no state yet: because RAFT_BOOTSTRAP says so, or because nothing
// points to a cluster and no other host can reach this one (the quick start).
// A join URL rules it out, whatever else is set.
func (c *Config) ShouldBootstrap() bool {
	if c.Raft.JoinURL != "" || c.Raft.Role == roleClient {
		return false
	}
	if c.Raft.Bootstrap != nil {
		return *c.Raft.Bootstrap
	}
	if len(c.Gossip.Seeds) > 0 {
		return false
	}
	for _, bind := range []string{c.HTTPBind, c.Raft.Bind, c.Gossip.Bind} {
		if bind != "" && !isLoopback(bind) {
			return false
		}
	}
	return true
}

// NodeName returns Node, else Gossip.Node, else the first label of the host
// name made into a label, else "node".
func (c *Config) NodeName() string {
	if c.Node != "" {
		return c.Node
	}
	if c.Gossip.Node != "" {
		return c.Gossip.Node
	}
	host, err := os.Hostname()
	if err != nil {
		return "node"
	}
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	host = strings.Map(func(r rune) rune {
		if (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9') {
			return r
		}
		return '-'
	}, host)
	host = strings.Trim(host[:min(len(host), record.MaxLabel)], "-")
	if host == "" {
		return "node"
	}
	return host
}

// RaftID returns Raft.ID, else the node's name.
func (c *Config) RaftID() string {
	if c.Raft.ID != "" {
		return c.Raft.ID
	}
	return c.NodeName()
}

// DataDirOrDefault returns DataDir, else /var/lib/fluid/<RAFT_ID> for root and
// $XDG_STATE_HOME/fluid/<RAFT_ID> (by default below ~/.local/state) for others.
func (c *Config) DataDirOrDefault() string {
	if c.DataDir != "" {
		return c.DataDir
	}
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/fluid", c.RaftID())
	}
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = os.TempDir()
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "fluid", c.RaftID())
}

func checkHostPort(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		if ae, ok := errors.AsType[*net.AddrError](err); ok {
			return errors.New(ae.Err)
		}
		return err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	return nil
}

func isUnspecified(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && a.IsUnspecified()
}

// reachable reports whether other hosts can reach addr; of what is no address
// that is no question.
func reachable(addr string) bool {
	return addr != "" && checkHostPort(addr) == nil && !isLoopback(addr)
}

// isLoopback reports whether only this host can reach addr. A name other than
// localhost may mean any address, so it counts as reachable.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
