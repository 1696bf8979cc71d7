package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/fluid-sd/fluid/plugin/record"
)

// What agents ask of the one that vouches for an instance.

// WithdrawRequest is what one agent asks of another that vouches for an
// instance.
type WithdrawRequest struct {
	Service   string `json:"service"`
	ID        string `json:"id"`
	Principal string `json:"principal"` // who asked the first one
}

// Edit is a change of an instance, by its agent or forwarded to it.
type Edit struct {
	Service   string  `json:"service"`
	ID        string  `json:"id"`
	Status    string  `json:"status,omitempty"` // empty: not changed
	Reason    string  `json:"reason,omitempty"` // of the status
	Weight    *uint16 `json:"weight,omitempty"` // nil: not changed
	Principal string  `json:"principal"`        // who asked the first one
}

const maxAsked = 4 << 10 // bytes of a request between agents about one instance

// withdraw serves WithdrawPath.
func (s *server) withdraw(w http.ResponseWriter, r *http.Request) {
	var req WithdrawRequest
	asked(w, r, &req, func() (Vouched, error) {
		path := EphemeralPath{Service: req.Service, ID: req.ID}
		id, err := path.check()
		if err != nil {
			return Vouched{}, err
		}
		return s.Ephemeral.WithdrawOwn(req.Service, id, req.Principal)
	})
}

// edit serves EditPath.
func (s *server) edit(w http.ResponseWriter, r *http.Request) {
	var req Edit
	asked(w, r, &req, func() (Vouched, error) {
		path := EphemeralPath{Service: req.Service, ID: req.ID}
		id, err := path.check()
		if err == nil && req.Status != "" {
			_, err = record.ParseStatus(req.Status)
		}
		if err != nil {
			return Vouched{}, err
		}
		req.ID = id
		return s.Ephemeral.EditOwn(req)
	})
}

// asked reads a request into req and answers what do makes of it.
func asked(w http.ResponseWriter, r *http.Request, req any, do func() (Vouched, error)) {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAsked))
	dec.DisallowUnknownFields()
	if err := dec.Decode(req); err != nil {
		writeProblem(w, fmt.Errorf("%w: %w", ErrInvalid, err))
		return
	}
	done, err := do()
	if err != nil {
		writeProblem(w, err)
		return
	}
	writeJSON(w, http.StatusOK, done)
}

// Withdraw asks the agent to withdraw an instance of its own.
func (c *Client) Withdraw(ctx context.Context, req WithdrawRequest) (Vouched, error) {
	var out Vouched
	err := c.do(ctx, http.MethodPost, WithdrawPath, nil, nil, req, &out)
	return out, err
}

// Edit asks the agent to change an instance of its own.
func (c *Client) Edit(ctx context.Context, e Edit) (Vouched, error) {
	var out Vouched
	err := c.do(ctx, http.MethodPost, EditPath, nil, nil, e, &out)
	return out, err
}
