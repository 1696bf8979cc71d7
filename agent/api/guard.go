package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fluid-sd/fluid/agent/store"
)

// caller says who sent a request.
type caller struct{ principal, remote string }

type callerKey struct{}

// callerOf returns who sent the request of ctx.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// WithPrincipal marks the requests of a listener as coming from someone whom
// the listener itself vouches for, such as the users that the permissions of a
// unix socket admit. The token is not asked of them.
func WithPrincipal(h http.Handler, principal string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), callerKey{}, caller{principal: principal, remote: r.RemoteAddr})
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// open are the paths that need no token.
var open = []string{"/healthz", "/readyz"}

// guard stands before every operation: it counts, recovers, keeps browsers of
// other sites out, asks for the token, and makes curl's default content type
// mean JSON.
func (s *server) guard(next http.Handler) http.Handler {
	requests := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "fluid", Subsystem: "http", Name: "request_duration_seconds",
		Help:    "Time to answer a request, by route and status.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
	}, []string{"route", "status"})
	if s.Metrics != nil {
		if err := s.Metrics.Register(requests); err != nil {
			s.Log.Warn("metrics of the HTTP interface are off", "error", err)
		}
	}
	var origin http.CrossOriginProtection
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		sw := &statusWriter{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // the documented comparison
					panic(p)
				}
				s.Log.Error("panic while answering", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				if sw.status == 0 {
					writeProblem(sw, fmt.Errorf("the agent failed on this request: %v", p))
				}
			}
			route := r.Pattern
			if route == "" || route == "/" {
				route = "other"
			}
			requests.WithLabelValues(route, strconv.Itoa(sw.status)).Observe(time.Since(start).Seconds())
		}()
		if err := origin.Check(r); err != nil {
			writeProblem(sw, fmt.Errorf("%w: %w; another site's page may not change this agent", ErrForbidden, err))
			return
		}
		who := callerOf(r.Context())
		if who.principal == "" {
			who.remote = r.RemoteAddr
			var err error
			if who.principal, err = s.authenticate(r); err != nil {
				sw.Header().Set("WWW-Authenticate", `Bearer realm="fluid"`)
				writeProblem(sw, err)
				return
			}
			r = r.WithContext(context.WithValue(r.Context(), callerKey{}, who))
		}
		if ct := r.Header.Get("Content-Type"); strings.HasPrefix(ct, "application/x-www-form-urlencoded") {
			r.Header.Set("Content-Type", "application/json") // curl -d
		}
		s.mark(sw.Header(), r)
		next.ServeHTTP(sw, r)
	})
}

// mark sets the headers that every answer below /v1 has, also those of
// operations that say nothing of them themselves. What a write committed, and
// what a read was answered from, replaces them.
func (s *server) mark(h http.Header, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v1/") || slices.Contains(peerPaths, r.URL.Path) {
		return
	}
	st := s.View.Status()
	h.Set("X-Fluid-Index", strconv.FormatUint(st.Position.Index, 10))
	h.Set("X-Fluid-Generation", strconv.FormatUint(st.Position.Generation, 10))
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		h.Set("X-Fluid-Stale", strconv.FormatBool(st.Stale))
		h.Set("Age", strconv.FormatInt(int64(st.Age/time.Second), 10))
	}
}

// authenticate returns who sent a request, by the secret that it carries.
func (s *server) authenticate(r *http.Request) (principal string, err error) {
	peer := slices.Contains(peerPaths, r.URL.Path)
	if slices.Contains(open, r.URL.Path) || s.Token == "" && (!peer || s.JoinSecret == "") {
		return "anonymous", nil
	}
	got, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case s.Token != "" && equal(got, s.Token):
		return "operator", nil
	case peer && s.JoinSecret != "" && equal(got, s.JoinSecret):
		return "server", nil
	case peer:
		return "", fmt.Errorf("%w: send the join secret as Authorization: Bearer SECRET (agents: RAFT_JOIN_SECRET_FILE)", ErrUnauthorized)
	}
	return "", fmt.Errorf("%w: send the operator token as Authorization: Bearer TOKEN (fluidctl: FLUID_TOKEN_FILE)", ErrUnauthorized)
}

// equal compares secrets in a time that tells nothing of them.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// statusWriter remembers the status that was answered.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// notFound answers what no operation is registered for: 405 with Allow for a
// known path, else 404.
func notFound(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
			probe := r.Clone(r.Context())
			probe.Method = m
			if _, pattern := mux.Handler(probe); pattern != "" && pattern != "/" {
				allowed = append(allowed, m)
			}
		}
		if len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			writeProblem(w, methodNotAllowed(r.Method, allowed))
			return
		}
		writeProblem(w, fmt.Errorf("%w: there is no %s; /openapi.json lists what there is", store.ErrNotFound, r.URL.Path))
	}
}
