package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

const overlaysTag = "overlays"

func (s *server) overlayOps() {
	create := op(http.MethodPost, "/v1/overlays", "create-overlay", "Drain, deny, weigh or allow an instance, a node or a service",
		overlaysTag, http.StatusConflict)
	create.DefaultStatus = http.StatusCreated
	huma.Register(s.huma, create, s.createOverlay)
	huma.Register(s.huma, op(http.MethodGet, "/v1/overlays", "list-overlays", "List overlays", overlaysTag), s.listOverlays)
	huma.Register(s.huma, op(http.MethodDelete, "/v1/overlays/{id}", "delete-overlay", "Lift an overlay",
		overlaysTag, http.StatusNotFound, http.StatusPreconditionFailed), s.deleteOverlay)
}

type createOverlayInput struct {
	WriteParams
	Body Overlay
}

type placedOutput struct {
	WriteHeaders
	Body Placed
}

func (s *server) createOverlay(ctx context.Context, in *createOverlayInput) (*placedOutput, error) {
	b := &in.Body
	kind, err := record.ParseOverlayKind(b.Kind)
	if err != nil {
		return nil, toProblem(err, "body")
	}
	o := record.Overlay{
		ID: overlayID(b.Kind, in.meta), Kind: kind, Service: b.Service, Instance: b.Instance,
		Node: b.Node, Weight: b.Weight, Reason: b.Reason,
	}
	if o.Expires, err = expiry("expires", b.Expires, s.Now()); err != nil {
		return nil, toProblem(err, "body")
	}
	if o.Instance != "" {
		if o.Instance, err = record.CanonicalID("instance", o.Instance); err != nil {
			return nil, toProblem(err, "body")
		}
	}
	if err := o.Validate(); err != nil {
		return nil, toProblem(err, "body")
	}
	body, err := json.Marshal(b)
	if err != nil {
		return nil, toProblem(err, "body")
	}
	in.meta.Request = requestOf(in.meta, body)
	res, err := s.Writer.PutOverlay(ctx, in.meta, o)
	if err != nil {
		return nil, toProblem(err, "body")
	}
	out := &placedOutput{WriteHeaders: writtenAt(res.Position), Body: Placed{
		ID: o.ID, Index: res.Position.Index, Generation: res.Position.Generation, Spread: Spread{Lagging: []string{}},
	}}
	if sp := s.spread(ctx, &in.WriteParams, out.WriteHeaders); sp != nil {
		out.Body.Spread = *sp
	}
	return out, nil
}

// overlayID names a new overlay. A request with an idempotency key gets the
// same name each time, so that a repetition is the same request.
func overlayID(kind string, m store.Meta) string {
	var b [6]byte
	if m.IdempotencyKey != "" {
		sum := sha256.Sum256([]byte(m.Principal + "\x00" + m.IdempotencyKey))
		copy(b[:], sum[:])
	} else {
		_, _ = rand.Read(b[:]) // never fails (Go 1.24)
	}
	return kind + "-" + hex.EncodeToString(b[:])
}

type overlayListOutput struct {
	ReadHeaders
	Body OverlayList
}

func (s *server) listOverlays(ctx context.Context, in *listInput) (*overlayListOutput, error) {
	head, err := s.readable(ctx, &in.ReadParams)
	if err != nil {
		return nil, err
	}
	out := &overlayListOutput{ReadHeaders: head, Body: OverlayList{Overlays: []Overlay{}}}
	for o, index := range s.State().Overlays() {
		if o.ID <= in.After {
			continue
		}
		if n := len(out.Body.Overlays); n == in.Limit {
			out.Body.Next = out.Body.Overlays[n-1].ID
			break
		}
		out.Body.Overlays = append(out.Body.Overlays, overlayOf(o, index))
	}
	return out, nil
}

type deleteOverlayInput struct {
	ID string `path:"id" doc:"Id of the overlay."`
	WriteParams
}

func (s *server) deleteOverlay(ctx context.Context, in *deleteOverlayInput) (*removedOutput, error) {
	res, err := s.Writer.DeleteOverlay(ctx, in.meta, in.ID)
	return s.removed(ctx, &in.WriteParams, "", in.ID, res, err)
}
