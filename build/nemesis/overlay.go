package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/url"

	"github.com/fluid-sd/fluid/agent/api"
)

// chooseOverlay places an overlay, or looks up or lifts one that was placed in
// this round.
func (w *workload) chooseOverlay(rng *rand.Rand, n int) input {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lately) == 0 || n < 3 {
		return input{kind: put, overlay: true, value: 1}
	}
	in := input{kind: get, overlay: true, key: w.lately[rng.IntN(len(w.lately))]}
	if n >= 7 {
		in.kind = del
	}
	return in
}

// doOverlay does what do does, with an overlay. The cluster names a new one:
// in gets its id, which is known only from an answer.
func (w *workload) doOverlay(ctx context.Context, a *agent, in *input, idempotency string) (out output, done bool) {
	var method, path string
	var body []byte
	switch in.kind {
	case put:
		method, path = http.MethodPost, "/v1/overlays"
		body, _ = json.Marshal(api.Overlay{Kind: "drain", Service: "r", Instance: instanceID}) // strings
	case del:
		method, path = http.MethodDelete, "/v1/overlays/"+in.key
	case get:
		// Ids are listed in order: what comes after all but the last letter of
		// this one is this one, if it is there.
		method, path = http.MethodGet, "/v1/overlays?consistency=linearizable&limit=20&after="+url.QueryEscape(in.key[:len(in.key)-1])
	}
	var ans struct {
		api.OverlayList
		problem
		ID string `json:"id"`
	}
	status, err := w.c.call(ctx, a, method, path, idempotency, body, &ans)
	if err == nil && status == http.StatusOK && in.kind == get {
		for _, o := range ans.Overlays {
			if o.ID == in.key {
				return output{found: true, value: 1}, true
			}
		}
		return output{}, true
	}
	if err == nil && status == http.StatusCreated && in.kind == put {
		in.key = ans.ID
		w.mu.Lock()
		w.placed, w.lately = append(w.placed, ans.ID), append(w.lately, ans.ID)
		w.mu.Unlock()
	}
	return w.outcome(*in, status, err, ans.problem, method+" "+path+" at "+a.name)
}
