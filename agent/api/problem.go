package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

var (
	// ErrInvalid is returned by a Client for a request that is not valid.
	ErrInvalid = errors.New("invalid request")
	// ErrUnauthorized is returned by a Client without the right token.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrForbidden is returned for a request that is refused whatever the token.
	ErrForbidden = errors.New("forbidden")
	// ErrUnsynced is returned for a read that the agent cannot answer, because
	// it has not restored its state yet.
	ErrUnsynced = errors.New("not synced yet")
	// ErrBehind is returned for a read that asks for newer state than the agent
	// has.
	ErrBehind = errors.New("behind")
	// ErrUnconfirmed is returned for an ephemeral write that is done at the agent
	// but not known to as many members as were asked for.
	ErrUnconfirmed = errors.New("not confirmed")
	// ErrOwner is returned for a removal whose owner does not answer.
	ErrOwner = errors.New("owner not reached")
	// ErrNoMesh is returned for what only a member of the mesh can do.
	ErrNoMesh = errors.New("in no mesh")
)

// kinds is the one table between errors, problem types and status codes. The
// server takes the first row whose error the outcome wraps, the client the
// first whose type the problem has.
var kinds = []struct {
	err    error
	status int
	typ    string // after "urn:fluid:"
	title  string
	retry  bool // answered with Retry-After
}{
	{ErrInvalid, http.StatusBadRequest, "invalid", "Invalid request", false},
	{store.ErrInvalid, http.StatusBadRequest, "invalid", "Invalid request", false},
	{ErrUnauthorized, http.StatusUnauthorized, "unauthorized", "A token is needed", false},
	{ErrForbidden, http.StatusForbidden, "forbidden", "Forbidden", false},
	{store.ErrNotFound, http.StatusNotFound, "not-found", "Not found", false},
	{store.ErrConflict, http.StatusConflict, "conflict", "Conflict with what is committed", false},
	{store.ErrOtherCluster, http.StatusConflict, "other-cluster", "Server of another cluster", false},
	{store.ErrFull, http.StatusConflict, "full", "The cluster has enough servers", false},
	{ErrNoMesh, http.StatusConflict, "no-mesh", "This agent is in no mesh", false},
	{ErrNotServer, http.StatusConflict, "not-server", "This agent is a client", false},
	{store.ErrPrecondition, http.StatusPreconditionFailed, "precondition", "If-Match names another index", false},
	{store.ErrTooLarge, http.StatusRequestEntityTooLarge, "too-large", "Too large", false},
	{record.ErrTooLarge, http.StatusRequestEntityTooLarge, "too-large", "Too large", false},
	{store.ErrKeyReused, http.StatusUnprocessableEntity, "key-reused", "Idempotency-Key used with another request", false},
	{store.ErrTooManyKeys, http.StatusTooManyRequests, "too-many-keys", "Too many idempotency keys", true},
	{store.ErrQuota, http.StatusInsufficientStorage, "quota", "Quota used up", false},
	{store.ErrDiskFull, http.StatusInsufficientStorage, "disk-full", "Disk full", false},
	{ErrUnsynced, http.StatusServiceUnavailable, "unsynced", "Not synced yet", true},
	{ErrUnconfirmed, http.StatusServiceUnavailable, "unconfirmed", "Done here, not known far enough", true},
	{ErrOwner, http.StatusServiceUnavailable, "owner", "The agent that vouches for it does not answer", true},
	{ErrBehind, http.StatusServiceUnavailable, "behind", "This agent does not know enough yet", true},
	{store.ErrUnknown, http.StatusServiceUnavailable, "unknown-outcome", "The write may or may not be done", true},
	{store.ErrUnavailable, http.StatusServiceUnavailable, "unavailable", "Not done: no leader with a quorum", true},
}

const typePrefix = "urn:fluid:"

// retryAfter is the wait, in seconds, that a 429 or 503 asks for.
const retryAfter = 1

// huma's error hooks are variables of its package; this is the only package
// of the module that uses huma. Its validation errors are 422 by default,
// which Fluid keeps for a reused idempotency key.
func init() {
	huma.ValidateStrictCasing = true
	huma.NewErrorWithContext = func(_ huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(status, msg, errs)
	}
}

// humaProblem turns what huma found wrong with a request into a problem.
func humaProblem(status int, msg string, errs []error) *huma.ErrorModel {
	if status == http.StatusUnprocessableEntity {
		status = http.StatusBadRequest
	}
	if m, ok := fixes[msg]; ok {
		msg = m
	}
	p := &huma.ErrorModel{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: msg}
	switch status {
	case http.StatusBadRequest:
		p.Type, p.Title = typePrefix+"invalid", "Invalid request"
	case http.StatusRequestEntityTooLarge:
		p.Type, p.Title = typePrefix+"too-large", "Too large"
	}
	for _, err := range errs {
		p.Errors = append(p.Errors, detail(err))
	}
	if len(p.Errors) > 0 && status == http.StatusBadRequest {
		p.Detail = summary(p.Errors)
	}
	return p
}

// fixes adds to huma's messages what would be accepted.
var fixes = map[string]string{
	validation.MsgUnexpectedProperty:                "is not a known field; remove it, /openapi.json lists the fields",
	"unknown query parameter":                       "is not a known query parameter; remove it, /openapi.json lists them",
	"required query parameter is missing":           "is missing; give it",
	"request body is required":                      "the body is empty; send JSON",
	fmt.Sprintf(validation.MsgExpectedMinLength, 1): "is empty; give it a value",
	validation.MsgExpectedMatchExactlyOneSchema:     `is not a port; use a number from 1 to 65535, or "NUMBER/udp"`, // the one choice of forms in a field
}

// patterns says in words what huma only knows as a regular expression.
var patterns = map[string]string{
	"query.ack": "is not usable; use local, or mesh:K to wait for K other members",
}

// required is what huma says, of the object around it, where a field is missing.
var required = regexp.MustCompile("^" + fmt.Sprintf(validation.MsgExpectedRequiredProperty, `([^ ]+)`) + "$")

func detail(err error) *huma.ErrorDetail {
	d := &huma.ErrorDetail{Message: err.Error()}
	var ed huma.ErrorDetailer
	if errors.As(err, &ed) {
		d = ed.ErrorDetail()
	}
	if m := required.FindStringSubmatch(d.Message); m != nil {
		d.Location, d.Message, d.Value = strings.TrimPrefix(d.Location+"."+m[1], "."), "is missing; give it", nil
	}
	if m, ok := fixes[d.Message]; ok {
		d.Message, d.Value = m, nil // huma gives the object around it
	}
	if m, ok := patterns[d.Location]; ok && strings.Contains(d.Message, "pattern") {
		d.Message = m
	}
	d.Value = shorten(d.Value)
	return d
}

const maxEcho = 128 // bytes of a refused value that a problem repeats

func shorten(v any) any {
	switch v := v.(type) {
	case nil, bool, float64, int, uint64:
		return v
	case string:
		if len(v) > maxEcho {
			return strings.ToValidUTF8(v[:maxEcho], "") + "..."
		}
		return v
	}
	b, err := json.Marshal(v)
	if err != nil || len(b) > maxEcho {
		return nil
	}
	return v
}

// summary is the one-line form of a problem with several errors.
func summary(errs []*huma.ErrorDetail) string {
	s := strings.TrimPrefix(errs[0].Location+": ", ": ") + errs[0].Message
	if len(errs) > 1 {
		s += fmt.Sprintf(" (and %d more)", len(errs)-1)
	}
	return s
}

// toProblem turns an error of a handler into the problem that is answered.
// where is the location of the record the request is about, for example
// "body" or "body[3]"; field errors are reported below it.
func toProblem(err error, where string) error {
	if _, ok := errors.AsType[huma.StatusError](err); ok {
		return err
	}
	p := &huma.ErrorModel{
		Type: "about:blank", Title: "Internal error", Status: http.StatusInternalServerError, Detail: err.Error(),
	}
	var fe *record.FieldError
	isField := errors.As(err, &fe)
	retry := false
	if isField {
		p.Type, p.Title, p.Status = typePrefix+"invalid", "Invalid request", http.StatusBadRequest
		if where != "" && !strings.HasPrefix(fe.Field, "[") { // an item of a batch
			where += "."
		}
		d := &huma.ErrorDetail{Location: where + fe.Field, Message: fe.Problem + "; " + fe.Fix}
		if fe.Value != "" {
			d.Value = fe.Value
		}
		p.Errors = []*huma.ErrorDetail{d}
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			p.Type, p.Title, p.Status, retry = typePrefix+k.typ, k.title, k.status, k.retry
			break
		}
	}
	if retry {
		return huma.ErrorWithHeaders(p, http.Header{"Retry-After": {strconv.Itoa(retryAfter)}})
	}
	return p
}

// Error is a problem that an agent answered. It wraps the sentinel of the
// kinds table: one of this package's or of package store's.
type Error struct {
	Status     int
	Type       string // URI of the kind of problem
	Title      string
	Detail     string
	Errors     []ErrorDetail
	RetryAfter int // seconds; 0: none asked for
}

// ErrorDetail is one thing wrong with a request.
type ErrorDetail struct {
	Location string `json:"location"`
	Message  string `json:"message"`
	Value    any    `json:"value,omitempty"`
}

// Error returns the detail, preceded by the field where one is to blame.
func (e *Error) Error() string {
	switch {
	case len(e.Errors) > 0:
		lines := make([]string, len(e.Errors))
		for i, d := range e.Errors {
			lines[i] = strings.TrimPrefix(d.Location+": ", ": ")
			if s, ok := d.Value.(string); ok {
				lines[i] += strconv.Quote(s) + " "
			}
			lines[i] += d.Message
		}
		return strings.Join(lines, "\n")
	case e.Detail != "":
		return e.Detail
	case e.Title != "":
		return e.Title
	}
	return "HTTP status " + strconv.Itoa(e.Status)
}

// Unwrap returns the sentinel of the problem's type, or nil.
func (e *Error) Unwrap() error {
	typ, ok := strings.CutPrefix(e.Type, typePrefix)
	if !ok {
		return nil
	}
	for _, k := range kinds {
		if k.typ == typ {
			return k.err
		}
	}
	return nil
}

// writeProblem answers a problem outside of huma.
func writeProblem(w http.ResponseWriter, err error) {
	err = toProblem(err, "")
	if he, ok := errors.AsType[huma.HeadersError](err); ok {
		maps.Copy(w.Header(), he.GetHeaders())
	}
	var p *huma.ErrorModel
	if !errors.As(err, &p) {
		p = &huma.ErrorModel{Status: http.StatusInternalServerError, Detail: err.Error()}
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func methodNotAllowed(method string, allowed []string) error {
	return &huma.ErrorModel{
		Type: "about:blank", Title: http.StatusText(http.StatusMethodNotAllowed), Status: http.StatusMethodNotAllowed,
		Detail: method + " is not possible here; use " + strings.Join(allowed, " or "),
	}
}
