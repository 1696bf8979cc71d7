package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/mesh/transport"
)

var _ api.Mesh = (*Agent)(nil)

// leaveTimeout bounds how long a leave waits for the others to know.
const leaveTimeout = 5 * time.Second

// enterMesh starts the member, unless there is one.
func (a *Agent) enterMesh() (mesh.Mesh, error) {
	a.meshMu.Lock()
	defer a.meshMu.Unlock()
	if p := a.mesh.Load(); p != nil {
		return *p, nil
	}
	select {
	case <-a.stopping:
		return nil, fmt.Errorf("%w: the agent stops", api.ErrNoMesh)
	default:
	}
	m, err := a.openMesh()
	if err != nil {
		return nil, err
	}
	a.mesh.Store(&m)
	a.log.Info("in the mesh", "implementation", a.cfg.Gossip.Impl, "address", m.Self().Addr, "seeds", a.cfg.Gossip.Seeds)
	a.view.attach(m)
	return m, nil
}

// exitMesh ends the member by end: Close or Leave.
func (a *Agent) exitMesh(end func(mesh.Mesh) error) error {
	a.meshMu.Lock()
	defer a.meshMu.Unlock()
	p := a.mesh.Swap(nil)
	if p == nil {
		return api.ErrNoMesh
	}
	a.view.attach(nil)
	return end(*p)
}

// meshable says why this agent cannot be in a mesh.
func (a *Agent) meshable() error {
	switch {
	case a.cfg.Gossip.Impl == string(mesh.InMemory):
		return fmt.Errorf("%w: set gossip_impl (GOSSIP_IMPL) to crdt or memberlist", api.ErrNoMesh)
	case !a.isClient() && !a.store.State().Initialized():
		return fmt.Errorf("%w: the cluster is not known yet", api.ErrNoMesh)
	}
	return nil
}

// JoinMesh implements api.Mesh.
func (a *Agent) JoinMesh(ctx context.Context, addrs []string) (int, error) {
	if err := a.meshable(); err != nil {
		return 0, err
	}
	m, err := a.enterMesh()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	n, err := m.Join(ctx, addrs)
	if err != nil {
		return 0, fmt.Errorf("%w: %w; the agent stays in the mesh alone and goes on trying its seeds", store.ErrUnavailable, err)
	}
	return n, nil
}

// LeaveMesh implements api.Mesh. A restart enters the mesh again.
func (a *Agent) LeaveMesh(ctx context.Context) error {
	if err := a.meshable(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	err := a.exitMesh(func(m mesh.Mesh) error { return m.Leave(ctx) })
	if err == nil {
		a.log.Info("left the mesh")
	}
	return err
}

// Nodes implements api.Mesh.
func (a *Agent) Nodes() []api.Node {
	a.view.mu.RLock()
	origins := a.view.cat.Origins()
	a.view.mu.RUnlock()
	out := make([]api.Node, 0, len(origins))
	for _, o := range origins {
		n := api.Node{
			ID: o.Node.ID, Name: o.Node.Name, Zone: o.Node.Zone, Version: o.Node.Version, State: o.State.String(),
			Addrs: []string{}, Members: append([]string{}, o.Node.Members...), Instances: o.Records, Bytes: o.Bytes,
			Origin: o.Origin.String(), Epoch: o.Epoch, Seq: o.Watermark, Behind: o.Behind > 0, Skewed: o.Skewed, Self: o.Own,
		}
		for _, addr := range o.Node.Addrs {
			n.Addrs = append(n.Addrs, addr.String())
		}
		if o.Node.ID != "" {
			n.Instances-- // the description of the node itself
		}
		if o.State != catalog.Attended && o.Since != 0 {
			n.Since = time.UnixMilli(o.Since).UTC().Format(time.RFC3339)
		}
		out = append(out, n)
	}
	return out
}

// keyring returns the ring of a comma list of keys, or nil without any.
func keyring(list string) (*transport.Keyring, error) {
	if list == "" {
		return nil, nil
	}
	keys, err := transport.ParseKeys(list)
	if err != nil {
		return nil, fmt.Errorf("gossip_key_hex: %w", err)
	}
	return transport.NewKeyring(keys...)
}

// keyBytes returns the keys of a ring; none of no ring.
func keyBytes(ring *transport.Keyring) (out [][]byte) {
	if ring == nil {
		return nil
	}
	for _, k := range ring.Keys() {
		b, err := hex.DecodeString(k.Hex())
		if err == nil { // it is what Hex made
			out = append(out, b)
		}
	}
	return out
}

// Keys implements api.Mesh.
func (a *Agent) Keys() []api.Key {
	out := []api.Key{}
	if a.ring == nil {
		return out
	}
	for _, k := range a.ring.List() {
		out = append(out, api.Key{ID: k.ID.String(), Bits: k.Bits, Primary: k.Primary})
	}
	return out
}

// ChangeKeys implements api.Mesh.
func (a *Agent) ChangeKeys(change api.KeyChange, principal string) ([]api.Key, error) {
	if a.cfg.Gossip.Impl == string(mesh.InMemory) {
		return nil, a.meshable()
	}
	if a.ring == nil {
		return nil, fmt.Errorf("%w: this mesh has no keys; restart every member with gossip_key_hex (GOSSIP_KEY_HEX_FILE)", store.ErrConflict)
	}
	a.meshMu.Lock()
	defer a.meshMu.Unlock()
	before := a.ring.Keys()
	id, err := applyKeyChange(a.ring, change)
	if err != nil {
		return nil, err
	}
	if err := a.turnMesh(); err != nil {
		return nil, errors.Join(err, a.ring.Replace(before))
	}
	if slices.Equal(before, a.ring.Keys()) {
		return a.Keys(), nil
	}
	if err := a.saveKeys(); err != nil {
		a.log.Warn("the key file could not be written: the change is lost with the next start", "error", err)
	}
	a.log.Info("keys of the mesh changed", "action", change.Action, "key", id.String(), "principal", principal, "saved", a.KeysSaved())
	return a.Keys(), nil
}

// applyKeyChange carries out one change. No error repeats a key.
func applyKeyChange(ring *transport.Keyring, change api.KeyChange) (id transport.KeyID, err error) {
	if change.Action == "add" {
		k, err := transport.ParseKey(change.Key)
		if err != nil {
			return id, fmt.Errorf("%w: key: %w", api.ErrInvalid, err)
		}
		if err := ring.Add(k); err != nil {
			return id, fmt.Errorf("%w: %w", store.ErrConflict, err)
		}
		return k.ID(), nil
	}
	if id, err = transport.ParseKeyID(change.ID); err != nil {
		return id, fmt.Errorf("%w: id: %w", api.ErrInvalid, err)
	}
	if change.Action == "use" {
		err = ring.Use(id)
	} else {
		err = ring.Remove(id)
	}
	switch {
	case errors.Is(err, transport.ErrUnknownKey):
		return id, fmt.Errorf("%w: %w", store.ErrNotFound, err)
	case err != nil:
		return id, fmt.Errorf("%w: %w", store.ErrConflict, err)
	}
	return id, nil
}
