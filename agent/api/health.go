package api

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// healthOps registers what monitors ask. These answers need no token, must
// not fail, and are described by hand.
func (s *server) healthOps(mux *http.ServeMux) {
	doc := s.huma.OpenAPI()
	describe := func(path, id, summary string, codes map[string]string) {
		o := &huma.Operation{
			OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Tags: []string{"health"},
			Responses: map[string]*huma.Response{},
		}
		for code, text := range codes {
			o.Responses[code] = &huma.Response{Description: text}
		}
		doc.AddOperation(o)
	}
	describe("/healthz", "healthz", "The process serves", map[string]string{"200": "It does"})
	describe("/readyz", "readyz", "State is restored; quorum is not asked", map[string]string{"200": "Ready", "503": "Not ready, with reasons"})
	describe("/metrics", "metrics", "Metrics in the Prometheus format", map[string]string{"200": "Metrics"})

	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, Health{Status: "ok", Reasons: []string{}})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		reasons, checks := s.Ready()
		h, code := Health{Status: "ready", Reasons: notNil(reasons)}, http.StatusOK
		if len(reasons) > 0 {
			h.Status, code = "not ready", http.StatusServiceUnavailable
		}
		if r.URL.Query().Has("verbose") {
			h.Checks = checks
		}
		writeJSON(w, code, h)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Gatherer, promhttp.HandlerOpts{}))
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // a client that left is no error
}

// Starting returns the handler of an agent that is still restoring its state:
// it is alive, not ready, and refuses everything else for the moment.
func Starting() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, Health{Status: "ok", Reasons: []string{}})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusServiceUnavailable, Health{Status: "not ready", Reasons: []string{"state is being restored"}})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, fmt.Errorf("%w: state is being restored", ErrUnsynced))
	})
	return mux
}
