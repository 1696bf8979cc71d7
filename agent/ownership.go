package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

const (
	ownerTimeout = 2 * time.Second        // how long an owner is tried
	ownerPause   = 100 * time.Millisecond // between two attempts
	fenceTimeout = 5 * time.Second        // for a commit and its way back
)

// claimant is another origin that holds a version of an instance which no
// fence hides.
type claimant struct {
	origin       record.OriginID
	member, node string // id in the mesh, and name, of its agent; empty: not known yet
	http         string // where its agent can be reached, by its own word; empty: that is not trusted
}

// String names the claimant for people.
func (cl claimant) String() string {
	if cl.node != "" {
		return cl.node
	}
	return cl.origin.String()
}

// claimants returns the other origins that hold an instance.
func (a *Agent) claimants(service, id string) (out []claimant) {
	a.view.catchUp()
	a.view.mu.RLock()
	defer a.view.mu.RUnlock()
	var nodes map[record.OriginID]record.Node
	for _, v := range a.view.cat.Verdicts(service) {
		hidden := v.Rule == catalog.RuleFenced || v.Rule == catalog.RuleClass
		if v.Instance.ID != id || v.Instance.Tier != catalog.TierGossip || hidden || v.Origin == *a.origin.id.Load() {
			continue
		}
		if nodes == nil {
			nodes = map[record.OriginID]record.Node{}
			for _, o := range a.view.cat.Origins() {
				nodes[o.Origin] = o.Node
			}
		}
		out = append(out, a.claimantOf(v.Origin, nodes[v.Origin]))
	}
	return out
}

// claimantOf returns the agent that a header describes.
func (a *Agent) claimantOf(origin record.OriginID, n record.Node) claimant {
	cl := claimant{origin: origin, member: n.ID, node: n.Name}
	if a.cfg.trusted(n.HTTP) {
		cl.http = n.HTTP
	}
	return cl
}

// takeOver commits that an instance belongs to this agent: what others claimed
// before is hidden everywhere, and they withdraw it.
func (a *Agent) takeOver(ctx context.Context, m store.Meta, service, id string) error {
	return a.fence(ctx, m, record.Fence{Kind: record.FenceTransfer, Origin: *a.origin.id.Load(), Service: service, Instance: id})
}

// fence commits a fence and waits until it acts here.
func (a *Agent) fence(ctx context.Context, m store.Meta, f record.Fence) error {
	ctx, cancel := context.WithTimeout(ctx, fenceTimeout)
	defer cancel()
	res, err := a.store.PutFence(ctx, m, f)
	if err == nil {
		err = a.store.WaitApplied(ctx, res.Position)
	}
	if err != nil {
		return fmt.Errorf("%s %s/%s: %w", f.Kind, f.Service, f.Instance, err)
	}
	a.view.catchUp()
	a.log.Info("fence committed", "kind", f.Kind.String(), "service", f.Service, "instance", f.Instance, "origin", f.Origin.String(),
		"principal", m.Principal, "remote", m.Remote, "position", res.Position.String())
	return nil
}

// WithdrawEphemeral implements api.Ephemeral.
func (a *Agent) WithdrawEphemeral(ctx context.Context, m store.Meta, service, id string, force bool) (api.Vouched, error) {
	done, err := a.WithdrawOwn(service, id, m.Principal)
	found := err == nil
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return done, err
	}
	for _, cl := range a.claimants(service, id) {
		v, err := a.withdrawAt(ctx, m, cl, service, id, force)
		switch {
		case errors.Is(err, store.ErrNotFound): // withdrawn meanwhile
		case err != nil:
			return api.Vouched{}, err
		case !found:
			done, found = v, true
		}
	}
	if !found {
		return api.Vouched{}, fmt.Errorf("%w: no agent has registered instance %s of %s", store.ErrNotFound, id, service)
	}
	return done, nil
}

// WithdrawOwn implements api.Ephemeral.
func (a *Agent) WithdrawOwn(service, id, principal string) (api.Vouched, error) {
	it, err := a.origin.withdraw(record.InstanceKey(service, id))
	v, err := a.vouch(service, id, it, err)
	if err == nil {
		a.log.Debug("instance withdrawn", "service", service, "instance", id, "principal", principal)
	}
	return v, err
}

// Edit implements api.Ephemeral.
func (a *Agent) Edit(ctx context.Context, e api.Edit) (api.Vouched, error) {
	done, err := a.EditOwn(e)
	if err == nil || !errors.Is(err, store.ErrNotFound) && !errors.Is(err, errElsewhere) {
		return done, err
	}
	owners := a.claimants(e.Service, e.ID)
	if errors.Is(err, errElsewhere) {
		owners = a.reporters(e.Service, e.ID)
	}
	found := false
	for _, cl := range owners {
		v, askErr := a.askOwner(ctx, cl, func(ctx context.Context, c *api.Client) (api.Vouched, error) { return c.Edit(ctx, e) })
		switch {
		case errors.Is(askErr, store.ErrNotFound): // withdrawn meanwhile
		case errors.Is(askErr, store.ErrConflict):
			return v, askErr
		case askErr != nil:
			return api.Vouched{}, fmt.Errorf("%w: instance %s of %s belongs to %s, which did not answer within %s: %s",
				api.ErrOwner, e.ID, e.Service, cl, ownerTimeout, askErr.Error())
		case !found:
			v.Owner = cl.String()
			done, err, found = v, nil, true
		}
	}
	return done, err
}

// reporters returns the agent of the node that a committed instance is on.
func (a *Agent) reporters(service, id string) []claimant {
	in, _, ok := a.store.State().Instance(service, id)
	if !ok {
		return nil
	}
	a.view.mu.RLock()
	defer a.view.mu.RUnlock()
	n, ok := a.view.cat.Node(in.Node)
	if !ok || n.ID == a.meshID() {
		return nil
	}
	return []claimant{a.claimantOf(record.OriginID{}, n)}
}

// withdrawAt asks an owner to withdraw, for two seconds; force kills what an
// owner that does not answer holds.
func (a *Agent) withdrawAt(ctx context.Context, m store.Meta, cl claimant, service, id string, force bool) (api.Vouched, error) {
	v, err := a.askOwner(ctx, cl, func(ctx context.Context, c *api.Client) (api.Vouched, error) {
		return c.Withdraw(ctx, api.WithdrawRequest{Service: service, ID: id, Principal: m.Principal})
	})
	switch {
	case err == nil:
		v.Owner = cl.String()
		return v, nil
	case errors.Is(err, store.ErrNotFound):
		return api.Vouched{}, err
	case !force:
		return api.Vouched{}, fmt.Errorf("%w: instance %s of %s belongs to %s, which did not answer within %s: %s; ?force=true removes it all the same",
			api.ErrOwner, id, service, cl, ownerTimeout, err.Error()) // its kind is not that of this answer
	}
	if err := a.fence(ctx, m, record.Fence{Kind: record.FenceKill, Origin: cl.origin, Service: service, Instance: id}); err != nil {
		return api.Vouched{}, err
	}
	return api.Vouched{Service: service, ID: id, Class: record.ClassEphemeral.String(), Owner: cl.String(), Killed: true}, nil
}

// request is what is asked of an owner.
type request func(context.Context, *api.Client) (api.Vouched, error)

// askOwner forwards a request to the owner until it answers or its time is up.
func (a *Agent) askOwner(ctx context.Context, cl claimant, req request) (api.Vouched, error) {
	ctx, cancel := context.WithTimeout(ctx, ownerTimeout)
	defer cancel()
	pause := time.NewTicker(ownerPause)
	defer pause.Stop()
	for {
		v, err := a.askOnce(ctx, cl, req)
		if err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
			return v, err
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return v, err
		}
	}
}

func (a *Agent) askOnce(ctx context.Context, cl claimant, req request) (api.Vouched, error) {
	url := cl.http
	for _, sv := range a.store.Servers() {
		if memberID(sv.ID) == cl.member {
			url = sv.HTTP // what the cluster agreed on goes before gossip
		}
	}
	if url == "" {
		return api.Vouched{}, errors.New("it is no server of the cluster, and gossip tells no address of it that can be trusted")
	}
	c, err := a.peers.to(url)
	if err != nil {
		return api.Vouched{}, err
	}
	return req(ctx, c)
}
