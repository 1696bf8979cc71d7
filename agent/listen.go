package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/fluid-sd/fluid/plugin/feed"
)

// maxMoves is how many addresses are tried where the default one is taken.
const maxMoves = 16

// listen listens on configured, which must be free, or else on the first free
// port from fallback on. The port that this data directory used last comes
// first: other servers know it.
func listen(ctx context.Context, key, configured, fallback, last string, log *slog.Logger) (net.Listener, error) {
	var lc net.ListenConfig
	if configured != "" {
		l, err := lc.Listen(ctx, "tcp", configured)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, &ConfigError{key, configured, "is in use by another process", "stop that process or choose another address"}
		}
		if err != nil {
			return nil, fmt.Errorf("%s (%s): %w", key, envName(key), err)
		}
		return l, nil
	}
	host, port, err := net.SplitHostPort(fallback)
	if err != nil {
		return nil, err
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	candidates := make([]string, maxMoves)
	for i := range candidates {
		candidates[i] = net.JoinHostPort(host, strconv.Itoa(first+i))
	}
	if i := slices.Index(candidates, last); i > 0 {
		candidates = slices.Insert(slices.Delete(candidates, i, i+1), 0, last)
	}
	for _, addr := range candidates {
		l, err := lc.Listen(ctx, "tcp", addr)
		if err == nil {
			if addr != fallback {
				log.Info("the default address is taken or was not used last time", "setting", envName(key), "default", fallback, "using", addr)
			}
			return l, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%s (%s): %w", key, envName(key), err)
		}
	}
	return nil, &ConfigError{key, fallback, fmt.Sprintf("and the %d ports after it are in use", maxMoves-1), "choose an address"}
}

// SocketOrDefault returns Socket, else /run/fluid/agent.sock for root and where
// $XDG_RUNTIME_DIR is not set, else $XDG_RUNTIME_DIR/fluid/agent.sock.
func (c *Config) SocketOrDefault() string {
	if c.Socket != "" {
		return c.Socket
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); os.Geteuid() != 0 && dir != "" {
		return filepath.Join(dir, "fluid", "agent.sock")
	}
	return "/run/fluid/agent.sock"
}

// listenSocket serves path, or, if it was not configured and another process
// serves it, the same name with the server's name in it.
func listenSocket(path string, movable bool, id string, log *slog.Logger) (net.Listener, error) {
	l, err := feed.Listen(path, -1)
	if err == nil || !movable || !errors.Is(err, feed.ErrInUse) {
		return l, err
	}
	ext := filepath.Ext(path)
	moved := path[:len(path)-len(ext)] + "-" + id + ext
	log.Info("the default socket is taken", "default", path, "using", moved)
	return feed.Listen(moved, -1)
}

// addresses are where an agent listened last. A default address that moved
// stays where it moved to, because the cluster knows it.
type addresses struct {
	HTTP string `json:"http"`
	Raft string `json:"raft"`
	// Gossip is where the member of the mesh was, whose port moves in the same
	// way; seeds of others name it.
	Gossip string `json:"gossip,omitempty"`
}

const addressesFile = "addresses.json"

func readAddresses(dir string) (a addresses) {
	b, err := os.ReadFile(filepath.Join(dir, addressesFile))
	if err == nil {
		_ = json.Unmarshal(b, &a) // a damaged file is no file
	}
	return a
}

func (a addresses) write(dir string) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, addressesFile+".new")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, addressesFile))
}
