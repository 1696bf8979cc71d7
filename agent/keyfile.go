package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fluid-sd/fluid/plugin/mesh/transport"
)

// keyFileLook is how often the key file is looked at.
const keyFileLook = time.Second

// followKeys takes on the keys of the key file when it changes, until ctx ends.
func (a *Agent) followKeys(ctx context.Context) {
	tick := time.NewTicker(keyFileLook)
	defer tick.Stop()
	var last string
	for {
		info, err := os.Stat(a.cfg.Gossip.KeyFile)
		mark := fmt.Sprint(err)
		if err == nil {
			mark = fmt.Sprint(info.ModTime().UnixNano(), info.Size())
		}
		if mark != last {
			last = mark
			a.takeKeys()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// takeKeys makes the keys of the file those of the running member. A file that
// cannot be used changes nothing.
func (a *Agent) takeKeys() {
	keys, err := readKeyFile(a.cfg.Gossip.KeyFile)
	if err != nil {
		a.log.Error("the key file cannot be used; the keys stay as they are", "error", err)
		return
	}
	a.meshMu.Lock()
	defer a.meshMu.Unlock()
	before := a.ring.Keys()
	if slices.Equal(before, keys) {
		return
	}
	if err := errors.Join(a.ring.Replace(keys), a.turnMesh()); err != nil {
		a.log.Error("the keys of the file cannot be used; they stay as they are", "error", errors.Join(err, a.ring.Replace(before)))
		return
	}
	a.log.Info("keys of the mesh changed with their file", "keys", len(keys), "encrypts", keys[0].ID().String())
}

// turnMesh gives the ring's keys to the running member. It is called with meshMu
// held.
func (a *Agent) turnMesh() error {
	if p := a.mesh.Load(); p != nil {
		return (*p).SetKeys(keyBytes(a.ring))
	}
	return nil
}

func readKeyFile(path string) ([]transport.Key, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	keys, err := transport.ParseKeys(strings.Join(strings.Fields(uncomment(string(b))), ","))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// KeysSaved implements api.Mesh.
func (a *Agent) KeysSaved() bool {
	if a.ring == nil || a.cfg.Gossip.KeyFile == "" {
		return false
	}
	keys, err := readKeyFile(a.cfg.Gossip.KeyFile)
	return err == nil && slices.Equal(keys, a.ring.Keys())
}

// saveKeys writes the ring into the key file, if there is one, under the
// owner and the mode that it has; its comments stay on top. A crash leaves the
// old file or the new one.
func (a *Agent) saveKeys() error {
	if a.cfg.Gossip.KeyFile == "" {
		return nil
	}
	path, err := filepath.EvalSymlinks(a.cfg.Gossip.KeyFile)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var text strings.Builder
	for line := range strings.Lines(string(old)) {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			text.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	for _, k := range a.ring.Keys() {
		text.WriteString(k.Hex() + "\n")
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".keys-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already, if all went well
	_, err = f.WriteString(text.String())
	if st, ok := info.Sys().(*syscall.Stat_t); ok && err == nil && (int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid()) {
		err = f.Chown(int(st.Uid), int(st.Gid))
	}
	if err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Sync(), f.Close()); err != nil {
		return err
	}
	return renameDurably(f.Name(), path)
}
