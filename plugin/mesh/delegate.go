package mesh

import (
	"errors"
	"log/slog"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. Its methods run on the library's
// goroutines, some under its locks: they take note and return.
type delegate gossip

var (
	_ memberlist.Delegate      = (*delegate)(nil)
	_ memberlist.EventDelegate = (*delegate)(nil)
	_ memberlist.AliveDelegate = (*delegate)(nil)
)

// guard keeps a panic over outside data from ending the process.
func (d *delegate) guard() {
	if r := recover(); r != nil {
		(*gossip)(d).drop("panic")
		d.cfg.Logger.Error("mesh delegate panicked", "panic", r, "stack", string(debug.Stack()))
	}
}

// Metadata of a member: version, role, flags, then zone and name with their
// lengths.
const (
	metaVersion = 1
	metaLeaving = 1
)

// NodeMeta implements memberlist.Delegate.
func (d *delegate) NodeMeta(limit int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	flags := byte(0)
	if d.leaving {
		flags = metaLeaving
	}
	b := []byte{metaVersion, byte(d.cfg.Role), flags}
	for _, s := range []string{d.cfg.Zone, d.cfg.Name} {
		s = s[:min(len(s), 255)]
		b = append(append(b, byte(len(s))), s...)
	}
	return b[:min(len(b), limit)]
}

var errMeta = errors.New("mesh: member's metadata is malformed")

// describe reads a node into a member. The node may change after the call.
func describe(n *memberlist.Node) (m Member, leaving bool, err error) {
	b := n.Meta
	if len(b) < 5 || b[0] != metaVersion {
		return Member{}, false, errMeta
	}
	m = Member{ID: strings.Clone(n.Name), Addr: n.Address(), Role: Role(b[1])}
	leaving = b[2]&metaLeaving != 0
	b = b[3:]
	for _, dst := range []*string{&m.Zone, &m.Name} {
		if len(b) == 0 || len(b)-1 < int(b[0]) {
			return Member{}, false, errMeta
		}
		*dst, b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	return m, leaving, nil
}

// NotifyAlive implements memberlist.AliveDelegate: who cannot be understood is
// not let in.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	_, _, err := describe(n)
	if err != nil {
		(*gossip)(d).drop("metadata")
	}
	return err
}

// NotifyJoin implements memberlist.EventDelegate.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.event(n, false) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.event(n, false) }

// NotifyLeave implements memberlist.EventDelegate. It means death as well; who
// left said so in its metadata before.
func (d *delegate) NotifyLeave(n *memberlist.Node) { d.event(n, true) }

func (d *delegate) event(n *memberlist.Node, down bool) {
	defer d.guard()
	m, leaving, err := describe(n)
	if err != nil {
		return
	}
	if down && leaving {
		m.State = Left
	}
	d.mu.Lock()
	d.events = append(d.events, memberEvent{node: m, down: down})
	d.mu.Unlock()
	poke(d.news)
}

// NotifyMsg implements memberlist.Delegate.
func (d *delegate) NotifyMsg(b []byte) {
	defer d.guard()
	if d.carrier != nil {
		d.carrier.message(append([]byte(nil), b...))
	}
}

// GetBroadcasts implements memberlist.Delegate.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	if d.carrier == nil {
		return nil
	}
	return d.carrier.queue.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte {
	defer d.guard()
	if d.carrier == nil {
		return nil
	}
	return d.carrier.state()
}

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState(b []byte, _ bool) {
	defer d.guard()
	if d.carrier != nil {
		d.carrier.merge(b)
	}
}

// logWriter passes memberlist's lines to a structured logger.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	level := slog.LevelDebug
	for prefix, l := range map[string]slog.Level{"[ERR]": slog.LevelWarn, "[WARN]": slog.LevelInfo, "[INFO]": slog.LevelDebug} {
		if strings.HasPrefix(line, prefix) {
			level, line = l, strings.TrimSpace(line[len(prefix):])
		}
	}
	w.log.Log(nil, level, strings.TrimPrefix(line, "[DEBUG] "), "component", "memberlist") //nolint:staticcheck // no context here
	return len(b), nil
}
