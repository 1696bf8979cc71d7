package agent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// maxReason is how many bytes of a reason are kept: it may be what an instance
// answered, and a report must fit into record.MaxEncoded.
const maxReason = 256

// setStatus sets the status of an instance that is registered here, or reports
// that of a committed instance of this node. What it says of the latter is a
// report in gossip, bound to the instance as it is committed now: the next
// registration starts anew. With yield it leaves what an operator said.
func (a *Agent) setStatus(service, id string, status record.Status, reason, principal string, yield bool) (api.Vouched, error) {
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "") // without a character that was cut
	in, at, committed := a.store.State().Instance(service, id)
	yielded := false
	if !committed {
		v, err := a.update(service, id, func(r *record.Instance) {
			if yielded = yield && byOperator(r.Status); !yielded {
				r.Status = status
			}
		})
		if err == nil && !yielded {
			a.log.Info("status set", "service", service, "instance", id, "status", status.String(), "reason", reason, "principal", principal)
		}
		return v, err
	}
	if err := a.reportable(&in); err != nil {
		return api.Vouched{}, err
	}
	rep := record.Report{Service: service, ID: id, Position: a.store.State().Position(), Status: status, Reason: reason}
	rep.Position.Index = at
	it, _, err := a.origin.change(func(now int64, ow *catalog.Owner) (it catalog.Item, changed bool, err error) {
		if yielded = yield && byOperator(a.origin.status(service, id)); yielded {
			return it, false, nil
		}
		if status != record.Passing {
			it, changed = ow.Report(now, &rep)
			return it, changed, nil
		}
		it, err = ow.Withdraw(now, record.ReportKey(service, id)) // it is passing without a report
		if errors.Is(err, catalog.ErrUnregistered) {
			return it, false, nil
		}
		return it, err == nil, err
	}, true)
	v, err := a.vouch(service, id, it, err)
	v.Class = record.ClassCritical.String()
	if err == nil && !yielded {
		a.log.Info("status reported", "service", service, "instance", id, "status", status.String(), "reason", reason, "principal", principal)
	}
	return v, err
}

// byOperator reports whether only an operator gives a status.
func byOperator(s record.Status) bool { return s == record.Draining || s == record.Maintenance }

// status returns the status that the origin says an instance has. It is called
// with mu held.
func (o *origin) status(service, id string) record.Status {
	if it, ok := o.items[record.InstanceKey(service, id)]; ok {
		if in, err := record.DecodeInstance(it.Value); err == nil {
			return in.Status
		}
	}
	if it, ok := o.items[record.ReportKey(service, id)]; ok {
		if rep, err := record.DecodeReport(it.Value); err == nil {
			return rep.Status
		}
	}
	return record.Passing
}

// errElsewhere is wrapped where the agent of another node can do it.
var errElsewhere = fmt.Errorf("%w with where it is", store.ErrConflict)

// reportable says why this agent cannot report on a committed instance: only
// the agent of its node can.
func (a *Agent) reportable(in *record.Instance) error {
	where := fmt.Sprintf("instance %s of %s", in.ID, in.Service)
	switch {
	case in.Node == "":
		return fmt.Errorf("%w: %s is on no node, so nobody reports on it; register it with a node, or drain it (POST /v1/overlays)", store.ErrConflict, where)
	case in.Node != a.cfg.NodeName():
		return fmt.Errorf("%w: %s is on node %s; ask the agent there", errElsewhere, where, in.Node)
	}
	return a.ownsName()
}

// ownsName says who else has the name of this node, and has had it for longer:
// nobody heeds what this one reports under it.
func (a *Agent) ownsName() error {
	name := a.cfg.NodeName()
	a.view.mu.RLock()
	n, ok := a.view.cat.Node(name)
	a.view.mu.RUnlock()
	if ok && n.ID != a.meshID() {
		return fmt.Errorf("%w: %s is also the name of another node, %s, which has had it for longer; give this one another (FLUID_NODE)", store.ErrConflict, name, n.ID)
	}
	return nil
}

// staleReports returns the reports on instances that are gone or were committed
// anew.
func (a *Agent) staleReports() (keys []record.Key) {
	st := a.store.State()
	a.origin.mu.Lock()
	defer a.origin.mu.Unlock()
	for key, it := range a.origin.items {
		if key.Kind() != record.KindReport {
			continue
		}
		rep, err := record.DecodeReport(it.Value)
		if err == nil {
			_, at, ok := st.Instance(rep.Service, rep.ID)
			if !outdated(rep.Position, st.Position(), at, ok) {
				continue
			}
		}
		keys = append(keys, key)
	}
	return keys
}

// outdated reports whether a report made at one position is on an instance that
// is not there any more, at another one, where it was committed at index at. A
// state from before the report, as there is after a restart, does not know.
func outdated(made, now record.Position, at uint64, there bool) bool {
	if now.Before(made) {
		return false
	}
	return !there || at != made.Index || now.Generation != made.Generation
}
