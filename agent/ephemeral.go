package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/check"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

var _ api.Ephemeral = (*Agent)(nil)

// RegisterEphemeral implements api.Ephemeral. The instance is on this node.
func (a *Agent) RegisterEphemeral(ctx context.Context, m store.Meta, in *record.Instance, w api.Watch, takeover bool) (api.Vouched, error) {
	if in.Node == "" {
		in.Node = a.cfg.NodeName()
	}
	key, target := record.InstanceKey(in.Service, in.ID), check.Key{Service: in.Service, ID: in.ID}
	in.Status = record.Maintenance // there must be room for any status later
	if err := in.Validate(); err != nil {
		return api.Vouched{}, err
	}
	in.Status = a.checks.first(target, w)
	a.origin.mu.Lock()
	_, existed := a.origin.items[key]
	a.origin.mu.Unlock()
	if !existed {
		if err := a.room(); err != nil {
			return api.Vouched{}, err
		}
	}
	it, changed, err := a.origin.register(in)
	var claimed *catalog.ClaimedError
	if takeover && errors.As(err, &claimed) {
		if err := a.takeOver(ctx, m, in.Service, in.ID); err != nil {
			return api.Vouched{}, err
		}
		it, changed, err = a.origin.register(in)
	}
	if err == nil {
		if err = a.checks.put(watched{target, w, in.Status}); err == nil {
			a.recheck(target, in.Status)
		}
	}
	v, err := a.vouch(in.Service, in.ID, it, err)
	v.Created = changed && !existed
	return v, err
}

// EditOwn implements api.Ephemeral.
func (a *Agent) EditOwn(e api.Edit) (api.Vouched, error) {
	if e.Status != "" {
		status, err := record.ParseStatus(e.Status)
		if err != nil {
			return api.Vouched{}, err
		}
		// Of an instance that is told to be passing its checks speak again.
		found, why, ok := a.checks.runner.Status(check.Key{Service: e.Service, ID: e.ID})
		if ok && status == record.Passing {
			status, e.Reason = found, why
		}
		return a.setStatus(e.Service, e.ID, status, e.Reason, e.Principal, false)
	}
	return a.update(e.Service, e.ID, func(r *record.Instance) {
		if e.Weight != nil {
			r.Weight = *e.Weight
		}
	})
}

// update changes an instance that is registered here by edit.
func (a *Agent) update(service, id string, edit func(*record.Instance)) (api.Vouched, error) {
	it, _, err := a.origin.update(service, id, edit)
	return a.vouch(service, id, it, err)
}

// vouch is the answer to a change, or its error in terms of the interface.
func (a *Agent) vouch(service, id string, it catalog.Item, err error) (api.Vouched, error) {
	var claimed *catalog.ClaimedError
	switch {
	case errors.As(err, &claimed):
		return api.Vouched{}, fmt.Errorf("%w: %w; change it there, or take it over with ?takeover=true", store.ErrConflict, err)
	case errors.Is(err, catalog.ErrCritical):
		return api.Vouched{}, fmt.Errorf("%w: service %s is critical; register with POST /v1/apps", store.ErrConflict, service)
	case errors.Is(err, catalog.ErrLimit):
		return api.Vouched{}, fmt.Errorf("%w: %w", store.ErrQuota, err)
	case errors.Is(err, catalog.ErrUnregistered):
		return api.Vouched{}, fmt.Errorf("%w: instance %s of %s is not registered at this agent", store.ErrNotFound, id, service)
	case err != nil:
		return api.Vouched{}, err
	}
	return api.Vouched{
		Service: service, ID: id, Class: record.ClassEphemeral.String(),
		Version: fmt.Sprintf("%d.%d", a.origin.head().Epoch, it.Seq),
	}, nil
}

// Confirm implements api.Ephemeral.
func (a *Agent) Confirm(ctx context.Context, k int) (int, error) {
	m := a.mesh.Load()
	if m == nil {
		return 0, errors.New("this agent is in no mesh: set GOSSIP_IMPL to crdt or memberlist")
	}
	return (*m).Confirm(ctx, a.origin.head(), k)
}
