package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Ephemeral writes the instances that this agent itself vouches for. A write
// that returned is synced to this agent's disk; what others know of it follows.
// Errors wrap a sentinel of package store or package catalog, or are a
// *record.FieldError.
type Ephemeral interface {
	// RegisterEphemeral takes an explicit registration, normalized and valid.
	// An instance that another living agent vouches for is store.ErrConflict;
	// with takeover it is committed first that it belongs to this one. Its
	// checks and its lifetime are watched from then on.
	RegisterEphemeral(ctx context.Context, m store.Meta, in *record.Instance, w Watch, takeover bool) (Vouched, error)
	// Edit changes the status or the weight of an instance at the agent that
	// vouches for it, or reports the status of a committed instance at the agent
	// of its node. One that does not answer is ErrOwner; a committed instance of
	// no node is store.ErrConflict.
	Edit(ctx context.Context, e Edit) (Vouched, error)
	// EditOwn is Edit for what this agent vouches for, and for committed
	// instances of its node. An Edit of nothing finds out whether that is so.
	EditOwn(e Edit) (Vouched, error)
	// WithdrawEphemeral removes an instance here and asks the other agents that
	// vouch for it to do so. One that does not answer is ErrOwner, or, with
	// force, its version is killed by a commit.
	WithdrawEphemeral(ctx context.Context, m store.Meta, service, id string, force bool) (Vouched, error)
	// WithdrawOwn removes an instance that is registered here.
	WithdrawOwn(service, id, principal string) (Vouched, error)
	// Confirm blocks until k other members of the mesh know all that was
	// written before, or ctx ends, and returns how many do.
	Confirm(ctx context.Context, k int) (int, error)
}

// Vouched is the answer to an ephemeral write.
type Vouched struct {
	Service   string `json:"service"`
	ID        string `json:"id"`
	Class     string `json:"class" enum:"critical,ephemeral"`
	Version   string `json:"version" doc:"EPOCH.SEQ of the agent that vouches for it; empty if it was killed."`
	Owner     string `json:"owner,omitempty" doc:"Node of the agent that vouched for it, if that is another one."`
	Killed    bool   `json:"killed,omitempty" doc:"It was removed by a commit, since its agent did not answer."`
	Confirmed int    `json:"confirmed" doc:"Other members of the mesh that are known to have it, if ack asked for any."`

	// Created says that it did not exist here before.
	Created bool `json:"-"`
}

// EphemeralPath holds the path of an ephemeral instance.
type EphemeralPath struct {
	Service string `path:"service" doc:"Name of the service."`
	ID      string `path:"id" doc:"Id of the instance, such as 10.0.0.9-8080."`
}

// AckParams says who must know of an ephemeral write before it is answered.
type AckParams struct {
	Ack     string `query:"ack" default:"local" pattern:"^(local|mesh:[1-9][0-9]{0,3})$" doc:"local: on this agent's disk. mesh:K: known to K other members as well."`
	Timeout string `query:"timeout" default:"5s" doc:"How long to wait for mesh:K, a Go duration."`

	members int
	timeout time.Duration
}

// Resolve checks the parameters.
func (in *AckParams) Resolve(huma.Context) []error {
	if k, ok := strings.CutPrefix(in.Ack, "mesh:"); ok {
		in.members, _ = strconv.Atoi(k) // the pattern checked it
	}
	var err error
	if in.timeout, err = time.ParseDuration(in.Timeout); err != nil || in.timeout <= 0 || in.timeout > time.Minute {
		return []error{&huma.ErrorDetail{Location: "query.timeout", Message: `is not usable; use a duration up to 1m, such as "5s"`, Value: in.Timeout}}
	}
	return nil
}

// StatusBody is the body of PUT …/status.
type StatusBody struct {
	Status string `json:"status" enum:"passing,warning,critical,draining,maintenance"`
	Reason string `json:"reason,omitempty" maxLength:"256" doc:"For those who look later. What is beyond 256 bytes is cut."`
}

// WeightBody is the body of PUT …/weight.
type WeightBody struct {
	Weight uint16 `json:"weight" maximum:"65535"`
}

type vouchedOutput struct {
	WriteHeaders
	Status int
	Body   Vouched
}

func (s *server) ephemeralOps() {
	const path = "/v1/services/{service}/instances/{id}"
	huma.Register(s.huma, op(http.MethodPut, path, "put-instance", "Register an ephemeral instance at this agent", servicesTag,
		http.StatusConflict, http.StatusInsufficientStorage),
		func(ctx context.Context, in *struct {
			EphemeralPath
			AckParams
			Takeover bool `query:"takeover" doc:"Commit that an instance of another agent belongs to this one."`
			Body     Target
		},
		) (*vouchedOutput, error) {
			rec, err := in.instance(&in.Body, s.Now())
			if err != nil {
				return nil, err
			}
			w, err := in.Body.watch()
			if err != nil {
				return nil, toProblem(err, "body")
			}
			done, err := s.Ephemeral.RegisterEphemeral(ctx, metaOf(ctx), &rec, w, in.Takeover)
			return s.vouched(ctx, &in.AckParams, done, err)
		})
	huma.Register(s.huma, op(http.MethodDelete, path, "delete-instance", "Withdraw an ephemeral instance, wherever it is registered", servicesTag, http.StatusNotFound),
		func(ctx context.Context, in *struct {
			EphemeralPath
			AckParams
			Force bool `query:"force" doc:"If its agent does not answer for 2 s, remove it by a commit."`
		},
		) (*vouchedOutput, error) {
			id, err := in.check()
			if err != nil {
				return nil, err
			}
			done, err := s.Ephemeral.WithdrawEphemeral(ctx, metaOf(ctx), in.Service, id, in.Force)
			return s.vouched(ctx, &in.AckParams, done, err)
		})
	s.checkOps(path)
	huma.Register(s.huma, op(http.MethodPut, path+"/status", "put-status", "Set the status of an ephemeral instance, wherever it is registered, or report that of a critical one on its node", servicesTag, http.StatusNotFound, http.StatusConflict),
		func(ctx context.Context, in *struct {
			EphemeralPath
			AckParams
			Body StatusBody
		},
		) (*vouchedOutput, error) {
			st, err := record.ParseStatus(in.Body.Status)
			if err != nil {
				return nil, toProblem(err, "body")
			}
			id, err := in.check()
			if err != nil {
				return nil, err
			}
			done, err := s.Ephemeral.Edit(ctx, Edit{
				Service: in.Service, ID: id, Status: st.String(), Reason: in.Body.Reason, Principal: callerOf(ctx).principal,
			})
			return s.vouched(ctx, &in.AckParams, done, err)
		})
	huma.Register(s.huma, op(http.MethodPut, path+"/weight", "put-weight", "Set the weight of an ephemeral instance, wherever it is registered", servicesTag, http.StatusNotFound),
		func(ctx context.Context, in *struct {
			EphemeralPath
			AckParams
			Body WeightBody
		},
		) (*vouchedOutput, error) {
			id, err := in.check()
			if err != nil {
				return nil, err
			}
			done, err := s.Ephemeral.Edit(ctx, Edit{Service: in.Service, ID: id, Weight: &in.Body.Weight, Principal: callerOf(ctx).principal})
			return s.vouched(ctx, &in.AckParams, done, err)
		})
}

// metaOf returns who asks.
func metaOf(ctx context.Context) store.Meta {
	who := callerOf(ctx)
	return store.Meta{Principal: who.principal, Remote: who.remote}
}

// check returns the canonical id.
func (in *EphemeralPath) check() (string, error) {
	if err := record.ValidateService("service", in.Service); err != nil {
		return "", toProblem(err, "path")
	}
	id, err := record.CanonicalID("id", in.ID)
	if err != nil {
		return "", toProblem(err, "path")
	}
	return id, nil
}

// instance returns the record that a body describes. The id of the path counts;
// one in the body must be the same.
func (in *EphemeralPath) instance(t *Target, now time.Time) (record.Instance, error) {
	id, err := in.check()
	if err != nil {
		return record.Instance{}, err
	}
	if t.ID != "" && t.ID != in.ID && t.ID != id {
		return record.Instance{}, toProblem(field("id", t.ID, "is not the id of the path", "leave it out"), "body")
	}
	t.ID = id
	rec, err := t.record(in.Service, now)
	if err != nil {
		return rec, toProblem(err, "body")
	}
	return rec, nil
}

// vouched answers a write once as many members as were asked for know of it.
func (s *server) vouched(ctx context.Context, ack *AckParams, done Vouched, err error) (*vouchedOutput, error) {
	if err != nil {
		return nil, toProblem(err, "body")
	}
	if ack.members > 0 && done.Owner != "" {
		return nil, toProblem(fmt.Errorf("%w: it is done at %s; who knows of that only %s can tell", ErrUnconfirmed, done.Owner, done.Owner), "")
	}
	if ack.members > 0 {
		ctx, cancel := context.WithTimeout(ctx, ack.timeout)
		defer cancel()
		if done.Confirmed, err = s.Ephemeral.Confirm(ctx, ack.members); err != nil {
			return nil, toProblem(fmt.Errorf("%w: the write is done here, but only %d of %d members are known to have it: %w",
				ErrUnconfirmed, done.Confirmed, ack.members, err), "")
		}
	}
	out := &vouchedOutput{WriteHeaders: writtenAt(s.View.Status().Position), Status: http.StatusOK, Body: done}
	if done.Created {
		out.Status = http.StatusCreated
	}
	return out, nil
}
