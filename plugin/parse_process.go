package fluid

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/fluid-sd/fluid/plugin/record"
)

// option reads the arguments of a process-wide option and returns what sets it.
type option func(p *parser, args []string) (func(*process), error)

var processOptions = map[string]option{
	"agent": func(p *parser, args []string) (func(*process), error) {
		path, err := one(args)
		if err != nil {
			return nil, err
		}
		path, _ = strings.CutPrefix(path, "unix://")
		if path == "" || strings.Contains(path, "://") {
			return nil, fmt.Errorf("%q is not the path of a unix socket", args[0])
		}
		path = p.file(path)
		return func(q *process) { q.Agent = path }, nil
	},
	"cluster": func(_ *parser, args []string) (func(*process), error) {
		id, err := one(args)
		if err == nil && (len(id) > 128 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r >= 0x7f })) {
			err = fmt.Errorf("%q is not a cluster id", id)
		}
		return func(q *process) { q.Cluster = id }, err
	},
	"capacity": count(func(q *process, n int) { q.Capacity = n }),
	"denial":   count(func(q *process, n int) { q.Denial = n }),
	"snapshot": func(p *parser, args []string) (func(*process), error) {
		path, err := one(args)
		path = p.file(path)
		return func(q *process) { q.Snapshot = path }, err
	},
	"startup_timeout": func(_ *parser, args []string) (func(*process), error) {
		arg, err := one(args)
		if err != nil {
			return nil, err
		}
		d, err := duration(arg)
		return func(q *process) { q.StartupTimeout = d }, err
	},
	"gossip": gossip,
	"gossip_node": func(_ *parser, args []string) (func(*process), error) {
		name, err := one(args)
		if err == nil && !record.IsLabel(name) {
			err = fmt.Errorf("%q is not a label of lower-case letters, digits and inner hyphens", name)
		}
		return func(q *process) { q.GossipNode = name }, err
	},
	"gossip_advertise": func(_ *parser, args []string) (func(*process), error) {
		arg, err := one(args)
		if err != nil {
			return nil, err
		}
		addr, err := hostPort(arg)
		return func(q *process) { q.GossipAdvertise = addr }, err
	},
	"gossip_seeds": func(_ *parser, args []string) (func(*process), error) {
		if len(args) == 0 {
			return nil, errArgs
		}
		for _, arg := range args {
			if strings.HasPrefix(arg, "-") || strings.Contains(arg, "/") {
				return nil, fmt.Errorf("%q is not an address or host name with an optional port", arg)
			}
		}
		return func(q *process) { q.GossipSeeds = args }, nil
	},
	"gossip_key": func(p *parser, args []string) (func(*process), error) {
		if len(args) == 0 {
			return nil, errArgs
		}
		var files []string
		for _, arg := range args {
			files = append(files, p.file(arg))
		}
		keys, err := readKeyFiles(files)
		if err != nil {
			return nil, err
		}
		return func(q *process) { q.GossipKeys, q.GossipKeyFiles = keys, files }, nil
	},
	"gossip_label": func(_ *parser, args []string) (func(*process), error) {
		label, err := one(args)
		if err == nil && len(label) > 255 {
			err = errors.New("a label has at most 255 bytes")
		}
		return func(q *process) { q.GossipLabel = label }, err
	},
	"gossip_allow": func(_ *parser, args []string) (func(*process), error) {
		allow, err := prefixes(args)
		return func(q *process) { q.GossipAllow = allow }, err
	},
	"gossip_compression": flag(func(q *process) { q.GossipCompression = true }),
	"gossip_insecure":    flag(func(q *process) { q.GossipInsecure = true }),
}

func one(args []string) (string, error) {
	if len(args) != 1 {
		return "", errArgs
	}
	return args[0], nil
}

func count(set func(*process, int)) option {
	return func(_ *parser, args []string) (func(*process), error) {
		n, err := number(args, 0, 1<<30)
		return func(q *process) { set(q, n) }, err
	}
}

func flag(set func(*process)) option {
	return func(_ *parser, args []string) (func(*process), error) {
		if len(args) != 0 {
			return nil, errArgs
		}
		return set, nil
	}
}

func gossip(_ *parser, args []string) (func(*process), error) {
	if len(args) < 1 || len(args) > 2 {
		return nil, errArgs
	}
	impl, addr := args[0], ""
	switch impl {
	case gossipRelay: // an environment variable that is not set
		return func(q *process) { q.Gossip = impl }, nil
	case gossipInMemory:
		if len(args) == 2 {
			return nil, errors.New("inmemory stays inside the process and takes no address")
		}
		return func(q *process) { q.Gossip = impl }, nil
	case gossipMemberlist, gossipCRDT:
	default:
		return nil, fmt.Errorf("%q is not one of inmemory, memberlist and crdt", impl)
	}
	if len(args) == 1 {
		addr = "127.0.0.1:" + defaultGossipPort
	} else {
		var err error
		if addr, err = hostPort(args[1]); err != nil {
			return nil, err
		}
	}
	return func(q *process) { q.Gossip, q.GossipAddress = impl, addr }, nil
}

// hostPort returns an IP address with a port, the default one if it has none.
func hostPort(arg string) (string, error) {
	host, port, err := net.SplitHostPort(arg)
	if err != nil {
		host, port = strings.Trim(arg, "[]"), defaultGossipPort
	}
	if host == "" {
		host = "0.0.0.0"
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return "", fmt.Errorf("%q is not an IP address with an optional port", arg)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", fmt.Errorf("%q is not a port", port)
	}
	return netip.AddrPortFrom(a, uint16(n)).String(), nil
}

// readKeyFiles returns the keys of files, in order.
func readKeyFiles(files []string) (keys [][]byte, err error) {
	for _, path := range files {
		more, err := readKeys(path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// readKeys reads a file of keys in hex, one a line.
func readKeys(path string) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s is open to every user of the machine; chmod it to 0640 or less", path)
	}
	var keys [][]byte
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := hex.DecodeString(string(line))
		if err != nil || len(key) != 16 && len(key) != 24 && len(key) != 32 {
			return nil, fmt.Errorf("%s:%d: a key is 32, 48 or 64 hex digits", path, n)
		}
		keys = append(keys, key)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s holds no key", path)
	}
	return keys, nil
}
