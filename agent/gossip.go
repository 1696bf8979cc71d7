package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// incarnationFile is what the member of the mesh keeps in the data directory.
const incarnationFile = "member.incarnation"

// advance is how often time passes in the catalog: hold-downs and guards.
const advance = time.Second

// runMesh joins the mesh once the cluster is known, for members take committed
// state only under its id, and stays in it until ctx ends. It closes without a
// word: a restart is not a leave.
func (a *Agent) runMesh(ctx context.Context) {
	if !a.initialized(ctx) {
		return
	}
	m, err := a.enterMesh()
	if err != nil {
		a.fail("mesh", err)
		return
	}
	defer func() {
		if err := a.exitMesh(mesh.Mesh.Close); err != nil && !errors.Is(err, api.ErrNoMesh) {
			a.log.Warn("mesh did not close", "error", err)
		}
	}()
	if len(a.cfg.Gossip.Seeds) > 0 {
		if _, err := m.Join(ctx, a.cfg.Gossip.Seeds); err != nil && ctx.Err() == nil {
			a.log.Warn("no seed answers yet; it goes on trying", "error", err)
		}
	}
	<-ctx.Done()
}

// initialized waits until this server knows its cluster. A client does not
// wait: it may learn of the servers from the mesh.
func (a *Agent) initialized(ctx context.Context) bool {
	for !a.isClient() && !a.store.State().Initialized() {
		select {
		case <-a.store.Changed(a.store.State().Position()):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// openMesh starts the member, on the first free port if its address was left
// at the default. The default port of CoreDNS is not taken from it.
func (a *Agent) openMesh() (mesh.Mesh, error) {
	g := a.cfg.Gossip
	cfg := mesh.Config{
		Impl: mesh.Impl(g.Impl), ID: a.meshID(), Name: a.memberName(), Role: mesh.RoleAgent,
		Zone: a.cfg.Zone, Replica: a.view, Cluster: a.clusterID(),
		Bind: g.Bind, Advertise: g.Advertise, Seeds: g.Seeds, Label: g.Label, Keys: keyBytes(a.ring),
		State:   filepath.Join(a.cfg.DataDirOrDefault(), incarnationFile),
		OnClone: a.noteClone,
		OnMember: func(mesh.Member) {
			select {
			case a.met <- struct{}{}:
			default:
			}
		},
		Compression: g.Compression, Insecure: a.cfg.Insecure, Logger: a.log.With("part", "mesh"),
	}
	for _, s := range g.Allow {
		if p, err := netip.ParsePrefix(s); err == nil {
			cfg.Allow = append(cfg.Allow, p)
		}
	}
	if g.Bind != "" || cfg.Impl == mesh.InMemory {
		return a.newMesh(cfg)
	}
	host, port, err := net.SplitHostPort(DefaultGossipBind)
	if err != nil {
		return nil, err
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	dir := a.cfg.DataDirOrDefault()
	last := readAddresses(dir)
	binds := []string{last.Gossip, DefaultGossipBind}
	for i := 1; i < maxMoves; i++ {
		if first+i != mesh.DefaultPort {
			binds = append(binds, net.JoinHostPort(host, strconv.Itoa(first+i)))
		}
	}
	for _, cfg.Bind = range binds {
		if cfg.Bind == "" {
			continue
		}
		m, err := a.newMesh(cfg)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err == nil && cfg.Bind != last.Gossip && cfg.Bind != DefaultGossipBind {
			a.log.Info("the default address is taken", "setting", "GOSSIP_BIND", "default", DefaultGossipBind, "using", cfg.Bind)
		}
		if last.Gossip = cfg.Bind; err == nil {
			if err := last.write(dir); err != nil {
				a.log.Warn("where the mesh is could not be kept for the next start", "error", err)
			}
		}
		return m, err
	}
	return nil, &ConfigError{"gossip_bind", DefaultGossipBind, fmt.Sprintf("and the %d ports after it are in use", maxMoves-1), "choose an address"}
}

func (a *Agent) newMesh(cfg mesh.Config) (mesh.Mesh, error) {
	m, err := mesh.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("gossip_bind (GOSSIP_BIND) %s: %w", cfg.Bind, err)
	}
	return m, nil
}

// memberName returns GOSSIP_NODE, else the node's name.
func (a *Agent) memberName() string {
	if a.cfg.Gossip.Node != "" {
		return a.cfg.Gossip.Node
	}
	return a.cfg.NodeName()
}

// meshMembers lists what failure detection says, or nil without a mesh.
func (a *Agent) meshMembers() []api.Member {
	p := a.mesh.Load()
	if p == nil || a.cfg.Gossip.Impl == string(mesh.InMemory) {
		return nil
	}
	var out []api.Member
	for _, m := range (*p).Members() {
		out = append(out, api.Member{Name: m.Name, ID: m.ID, Addr: m.Addr, Role: m.Role.String(), State: m.State.String(), Zone: m.Zone})
	}
	return out
}

// attach makes committed state go out to the mesh as it is applied; nil ends
// that. The mesh gets the state of now at once.
func (v *view) attach(m mesh.Mesh) {
	v.mu.Lock()
	v.mesh = m
	pos, hash := v.cat.Position(), v.cat.Hash()
	v.mu.Unlock()
	if m == nil {
		return
	}
	if seal, ok := v.store.State().Seal(pos, hash); ok {
		m.Commit(catalog.Batch{Prev: pos, Seal: seal})
	}
}

// Update implements mesh.Replica.
func (v *view) Update(f func(*catalog.Catalog) catalog.Changes) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if ch := f(v.cat); !ch.Empty() {
		v.changed(ch)
	}
}

// commitOwn makes an item of the own origin visible here and in the mesh, and
// returns it with its sequence number.
func (v *view) commitOwn(now int64, ow *catalog.Owner, it catalog.Item) catalog.Item {
	v.mu.Lock()
	d, ch := ow.Commit(now, it)
	m := v.mesh
	v.changed(ch)
	v.mu.Unlock()
	if m != nil {
		m.Publish(d)
	}
	for _, published := range d.Items {
		if published.Key == it.Key {
			return published
		}
	}
	return it
}

// changed wakes who waits for gossip. It is called with mu held.
func (v *view) changed(ch catalog.Changes) {
	v.version++
	v.remember(ch)
	close(v.gossip)
	v.gossip = make(chan struct{})
}

var _ feed.Relay = (*view)(nil)

// maxPull is more than all of an origin's records can be.
const maxPull = 1 << 30

// Since implements feed.Relay for DNS servers that do not gossip themselves.
func (v *view) Since(have feed.Vector) (iter.Seq[[]byte], feed.Vector, uint64) {
	known := map[record.OriginID]feed.Watermark{}
	for _, w := range have {
		known[w.Origin] = w
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	var frames [][]byte
	var now feed.Vector
	for _, h := range v.cat.Heads() {
		now = append(now, feed.Watermark{Origin: h.Origin, Epoch: h.Epoch, Seq: h.Watermark})
		want := catalog.Want{Origin: h.Origin}
		if w, ok := known[h.Origin]; ok && w.Epoch == h.Epoch {
			if w.Seq >= h.Watermark {
				continue
			}
			want.Epoch, want.Nonce, want.From = h.Epoch, h.Nonce, w.Seq
		}
		for _, d := range v.cat.Pull(want, maxPull) {
			frames = append(frames, d.Append(nil))
		}
	}
	return slices.Values(frames), now, v.version
}

// Changed implements feed.Relay.
func (v *view) Changed(version uint64) <-chan struct{} {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.version != version {
		return closed
	}
	return v.gossip
}

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// publish hands what was committed after have to the mesh. It is called
// without the lock.
func (v *view) publish(m mesh.Mesh, have record.Position) {
	v.mu.RLock()
	pos, hash := v.cat.Position(), v.cat.Hash()
	seal, ok := v.store.State().Seal(pos, hash)
	var batches []catalog.Batch
	if ok {
		batches = v.cat.Batches(have, seal)
	}
	v.mu.RUnlock()
	if len(batches) > 0 { // of a full state, members ask for the rest
		m.Commit(batches[0])
	}
}
