package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

const appsTag = "apps"

type registerInput struct {
	WriteParams
	RawBody []byte `contentType:"application/json"`
}

type registerOutput struct {
	WriteHeaders
	Status int
	Body   any
}

func (s *server) appOps() {
	reg := s.huma.OpenAPI().Components.Schemas
	app := reg.Schema(reflect.TypeFor[App](), true, "")
	result := reg.Schema(reflect.TypeFor[Registered](), true, "")

	register := op(http.MethodPost, "/v1/apps", "register-app", "Register instances of critical services",
		appsTag, http.StatusConflict, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge,
		http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusInsufficientStorage)
	register.Description = "An upsert: 201 if an instance is new, 200 if all exist, changed or not. " +
		"An array is one commit, all or nothing, of at most 1000 instances and 512 KiB."
	register.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/json": {Schema: oneOrMany(app, store.MaxBatch)},
	}}
	register.SkipValidateBody = true // validated item by item, so that an error names the item
	register.Responses = map[string]*huma.Response{}
	for code, text := range map[string]string{"200": "All existed", "201": "At least one is new"} {
		register.Responses[code] = &huma.Response{Description: text, Content: map[string]*huma.MediaType{
			"application/json": {Schema: oneOrMany(result, 0)},
		}}
	}
	huma.Register(s.huma, register, func(ctx context.Context, in *registerInput) (*registerOutput, error) {
		return s.register(ctx, in, app)
	})

	huma.Register(s.huma, op(http.MethodGet, "/v1/apps", "list-apps", "List critical services", appsTag), s.listApps)
	huma.Register(s.huma, op(http.MethodGet, "/v1/apps/{app}", "get-app", "Show a critical service", appsTag, http.StatusNotFound), s.getApp)
	huma.Register(s.huma, op(http.MethodDelete, "/v1/apps/{app}", "deregister-app", "Remove a critical service with all its instances",
		appsTag, http.StatusNotFound, http.StatusPreconditionFailed), s.deregister)
	huma.Register(s.huma, op(http.MethodDelete, "/v1/apps/{app}/instances/{id}", "deregister-instance", "Remove one instance of a critical service",
		appsTag, http.StatusNotFound, http.StatusPreconditionFailed), s.deregisterInstance)
}

// oneOrMany is the schema of an object or an array of such.
func oneOrMany(item *huma.Schema, most int) *huma.Schema {
	many := &huma.Schema{Type: huma.TypeArray, Items: item}
	if most > 0 {
		least := 1
		many.MinItems, many.MaxItems = &least, &most
	}
	return &huma.Schema{OneOf: []*huma.Schema{item, many}}
}

func (s *server) register(ctx context.Context, in *registerInput, schema *huma.Schema) (*registerOutput, error) {
	items, isArray, err := splitBody(in.RawBody)
	if err != nil {
		return nil, toProblem(err, "body")
	}
	instances, watches := make([]record.Instance, len(items)), make([]Watch, len(items))
	for i, raw := range items {
		where := "body"
		if isArray {
			where += "[" + strconv.Itoa(i) + "]"
		}
		var app App
		if err := s.decode(raw, schema, where, &app); err != nil {
			return nil, err
		}
		if err := record.ValidateService("appId", app.AppID); err != nil {
			return nil, toProblem(err, where)
		}
		if watches[i], err = app.watch(); err == nil && len(watches[i].Checks) > 0 {
			if app.Node == "" {
				app.Node = s.Node
			}
			err = s.Checks.CanCheck(app.Node)
		}
		if err != nil {
			return nil, toProblem(err, where)
		}
		if instances[i], err = app.record(app.AppID, s.Now()); err != nil {
			return nil, toProblem(err, where)
		}
	}
	if err := s.unclaimed(instances); err != nil {
		return nil, toProblem(err, "body")
	}
	in.meta.Request = requestOf(in.meta, in.RawBody)
	results, err := s.Writer.Register(ctx, in.meta, instances)
	if err != nil {
		return nil, toProblem(err, "body")
	}
	out := registered(results, isArray)
	s.settle(ctx, record.Position{Generation: out.Generation, Index: out.Index})
	if err := s.watchAll(instances, watches); err != nil {
		return nil, toProblem(fmt.Errorf("registered, but %w", err), "")
	}
	if sp := s.spread(ctx, &in.WriteParams, out.WriteHeaders); sp != nil {
		switch b := out.Body.(type) {
		case *Registered:
			b.Spread = sp
		case *[]Registered:
			for i := range *b {
				(*b)[i].Spread = sp
			}
		}
	}
	return out, nil
}

// unclaimed refuses instances of services that gossip carries as ephemeral, as
// far as this agent knows: committing them would hide what is registered
// there. Where the class is committed, the commit itself decides.
func (s *server) unclaimed(instances []record.Instance) error {
	st := s.State()
	last := ""
	for i := range instances {
		name := instances[i].Service
		if name == last {
			continue
		}
		last = name
		if _, committed := st.Entry(record.ServiceKey(name)); committed {
			continue
		}
		if _, verdicts, ok := s.View.Service(name); ok && len(verdicts) > 0 {
			return fmt.Errorf("%w: service %s is ephemeral; register with PUT /v1/services/%s/instances/ID, or make it critical with PUT /v1/services/%s/config",
				store.ErrConflict, name, name, name)
		}
	}
	return nil
}

// requestOf identifies a request that carries an idempotency key by its body:
// the lifetimes in it are from now on, so the records differ each time.
func requestOf(m store.Meta, body []byte) string {
	if m.IdempotencyKey == "" {
		return ""
	}
	sum := sha256.Sum256(body)
	return string(sum[:16])
}

func registered(results []store.Result, isArray bool) *registerOutput {
	out := &registerOutput{Status: http.StatusOK}
	bodies := make([]Registered, len(results))
	for i, r := range results {
		if r.Created {
			out.Status = http.StatusCreated
		}
		if p := r.Position; p.Index > out.Index {
			out.WriteHeaders = writtenAt(p)
		}
		bodies[i] = Registered{
			Service: r.Service, ID: r.ID, Class: record.ClassCritical.String(),
			Generation: r.Position.Generation, Index: r.Position.Index,
		}
	}
	out.Body = &bodies
	if !isArray {
		out.Body = &bodies[0]
	}
	return out
}

// splitBody returns the items of an array, or the one object.
func splitBody(body []byte) (items []json.RawMessage, isArray bool, err error) {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return nil, false, fmt.Errorf("%w: the body is empty; send an object or an array of objects", ErrInvalid)
	}
	if body[0] != '[' {
		return []json.RawMessage{body}, false, nil
	}
	if err := json.Unmarshal(body, &items); err != nil {
		return nil, true, fmt.Errorf("%w: the body is not JSON: %w", ErrInvalid, err)
	}
	switch n := len(items); {
	case n == 0:
		return nil, true, fmt.Errorf("%w: the array is empty; send at least one object", ErrInvalid)
	case n > store.MaxBatch:
		return nil, true, fmt.Errorf("%w: %d items exceed the limit of %d; send several batches", store.ErrTooLarge, n, store.MaxBatch)
	}
	return items, true, nil
}

// decode checks raw against a schema and reads it into v. Its errors are
// problems with locations below where.
func (s *server) decode(raw []byte, schema *huma.Schema, where string, v any) error {
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return toProblem(fmt.Errorf("%w: %s is not JSON: %w", ErrInvalid, where, err), "")
	}
	path := huma.NewPathBuffer(make([]byte, 0, 64), 0)
	path.Push(where)
	res := &huma.ValidateResult{}
	huma.Validate(s.huma.OpenAPI().Components.Schemas, schema, path, huma.ModeWriteToServer, tree, res)
	if len(res.Errors) > 0 {
		return humaProblem(http.StatusBadRequest, "validation failed", res.Errors)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return toProblem(fmt.Errorf("%w: %s: %w", ErrInvalid, where, err), "")
	}
	return nil
}

type appInput struct {
	App string `path:"app" doc:"Name of the service."`
	WriteParams
}

type instanceInput struct {
	App string `path:"app" doc:"Name of the service."`
	ID  string `path:"id" doc:"Id of the instance, such as 10.0.0.9."`
	WriteParams
}

type removedOutput struct {
	WriteHeaders
	Body Removed
}

func (s *server) deregister(ctx context.Context, in *appInput) (*removedOutput, error) {
	if err := record.ValidateService("app", in.App); err != nil {
		return nil, toProblem(err, "path")
	}
	res, err := s.Writer.Deregister(ctx, in.meta, in.App)
	return s.removed(ctx, &in.WriteParams, in.App, "", res, err)
}

func (s *server) deregisterInstance(ctx context.Context, in *instanceInput) (*removedOutput, error) {
	if err := record.ValidateService("app", in.App); err != nil {
		return nil, toProblem(err, "path")
	}
	id, err := record.CanonicalID("id", in.ID)
	if err != nil {
		return nil, toProblem(err, "path")
	}
	res, err := s.Writer.DeregisterInstance(ctx, in.meta, in.App, id)
	return s.removed(ctx, &in.WriteParams, in.App, id, res, err)
}

func (s *server) removed(ctx context.Context, in *WriteParams, service, id string, res store.Result, err error) (*removedOutput, error) {
	if err != nil {
		return nil, toProblem(err, "path")
	}
	out := &removedOutput{WriteHeaders: writtenAt(res.Position), Body: Removed{
		Service: service, ID: id, Generation: res.Position.Generation, Index: res.Position.Index,
	}}
	out.Body.Spread = s.spread(ctx, in, out.WriteHeaders)
	return out, nil
}

type appListOutput struct {
	ReadHeaders
	Body AppList
}

func (s *server) listApps(ctx context.Context, in *listInput) (*appListOutput, error) {
	head, err := s.readable(ctx, &in.ReadParams)
	if err != nil {
		return nil, err
	}
	rows, next := s.summaries(in.After, in.Limit, func(sum *ServiceSummary) bool { return sum.Class == record.ClassCritical.String() })
	out := &appListOutput{ReadHeaders: head, Body: AppList{Apps: make([]AppSummary, len(rows)), Next: next}}
	for i, r := range rows {
		out.Body.Apps[i] = AppSummary{AppID: r.Service, ServiceSummary: r}
	}
	return out, nil
}

func (s *server) getApp(ctx context.Context, in *struct {
	App string `path:"app" doc:"Name of the service."`
	ReadParams
	WaitParams
	FilterParams
},
) (*serviceOutput, error) {
	out, err := s.getService(ctx, &getServiceInput{Service: in.App, ReadParams: in.ReadParams, WaitParams: in.WaitParams, FilterParams: in.FilterParams})
	if err == nil && out.Body.Class != record.ClassCritical.String() {
		err = toProblem(fmt.Errorf("%w: service %s is %s, not an app; see /v1/services/%s", store.ErrNotFound, in.App, out.Body.Class, in.App), "")
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}
