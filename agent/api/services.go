package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

const servicesTag = "services"

func (s *server) serviceOps() {
	huma.Register(s.huma, op(http.MethodGet, "/v1/services", "list-services", "List services", servicesTag), s.listServices)
	huma.Register(s.huma, op(http.MethodGet, "/v1/services/{service}", "get-service", "Show a service and its instances",
		servicesTag, http.StatusNotFound), s.getService)
	huma.Register(s.huma, op(http.MethodGet, "/v1/services/{service}/config", "get-service-config", "Show the settings of a service",
		servicesTag, http.StatusNotFound), s.getServiceConfig)
	huma.Register(s.huma, op(http.MethodPut, "/v1/services/{service}/config", "put-service-config", "Set class and settings of a service",
		servicesTag, http.StatusConflict, http.StatusPreconditionFailed), s.putServiceConfig)
}

type listServicesInput struct {
	ReadParams
	PageParams
	Tag    string `query:"tag" doc:"Only services with an instance that has this tag."`
	Zone   string `query:"zone" doc:"Only services with an instance in this zone."`
	Status string `query:"status" enum:"passing,warning,critical,draining,maintenance" doc:"Only services with an instance of this status."`
}

type serviceListOutput struct {
	ReadHeaders
	Body ServiceList
}

func (s *server) listServices(ctx context.Context, in *listServicesInput) (*serviceListOutput, error) {
	head, err := s.readable(ctx, &in.ReadParams)
	if err != nil {
		return nil, err
	}
	f := filter{in.Tag, in.Zone, in.Status}
	rows, next := s.summaries(in.After, in.Limit, func(sum *ServiceSummary) bool {
		return f == filter{} || sum.InstanceCount > 0
	}, f)
	return &serviceListOutput{ReadHeaders: head, Body: ServiceList{Services: rows, Next: next}}, nil
}

// filter selects instances; empty fields select all.
type filter struct{ tag, zone, status string }

func (f filter) keeps(in *Instance) bool {
	return (f.tag == "" || slices.Contains(in.Tags, f.tag)) &&
		(f.zone == "" || in.Zone == f.zone) && (f.status == "" || in.Status == f.status)
}

// summaries returns a page of services that keep holds for, and where the next
// one starts. Counts are of the instances that the filter selects.
func (s *server) summaries(after string, limit int, keep func(*ServiceSummary) bool, f ...filter) (rows []ServiceSummary, next string) {
	rows = []ServiceSummary{}
	var sel filter
	if len(f) > 0 {
		sel = f[0]
	}
	for {
		names := s.View.Names(after, limit+1)
		for _, name := range names {
			if len(rows) == limit {
				return rows, after
			}
			after = name
			if sum, ok := s.summary(name, sel); ok && keep(&sum) {
				rows = append(rows, sum)
			}
		}
		if len(names) <= limit {
			return rows, ""
		}
	}
}

func (s *server) summary(name string, f filter) (ServiceSummary, bool) {
	view, verdicts, ok := s.View.Service(name)
	if !ok {
		return ServiceSummary{}, false
	}
	sum := ServiceSummary{Service: name, Class: view.Class.String(), Index: view.Index, Tags: []string{}}
	for _, v := range verdicts {
		in, err := instanceOf(v)
		if err != nil || !f.keeps(&in) {
			continue
		}
		sum.InstanceCount++
		if v.Answered && in.Status == record.Passing.String() {
			sum.PassingCount++
		}
		sum.Tags = append(sum.Tags, in.Tags...)
	}
	slices.Sort(sum.Tags)
	sum.Tags = slices.Compact(sum.Tags)
	return sum, true
}

// FilterParams select instances of a service.
type FilterParams struct {
	Tag    string `query:"tag" doc:"Only instances with this tag."`
	Zone   string `query:"zone" doc:"Only instances in this zone."`
	Status string `query:"status" enum:"passing,warning,critical,draining,maintenance" doc:"Only instances of this status."`
}

type getServiceInput struct {
	ReadParams
	WaitParams
	FilterParams
	Service string `path:"service" doc:"Name of the service."`
}

type serviceOutput struct {
	ReadHeaders
	Body Service
}

func (s *server) getService(ctx context.Context, in *getServiceInput) (*serviceOutput, error) {
	if err := record.ValidateService("service", in.Service); err != nil {
		return nil, toProblem(err, "path")
	}
	if err := s.await(ctx, &in.WaitParams, in.Service); err != nil {
		return nil, err
	}
	head, err := s.readable(ctx, &in.ReadParams)
	if err != nil {
		return nil, err
	}
	view, verdicts, ok := s.View.Service(in.Service)
	if !ok {
		return nil, noService(in.Service)
	}
	out := &serviceOutput{ReadHeaders: head, Body: Service{
		Service: in.Service, Class: view.Class.String(), Index: view.Index, Stale: head.Stale, Instances: []Instance{},
	}}
	f := filter{in.Tag, in.Zone, in.Status}
	for _, v := range verdicts {
		inst, err := instanceOf(v)
		if err != nil {
			return nil, toProblem(err, "")
		}
		if f.keeps(&inst) {
			out.Body.Instances = append(out.Body.Instances, inst)
		}
	}
	return out, nil
}

func noService(name string) error {
	return toProblem(fmt.Errorf("%w: no service is named %s", store.ErrNotFound, name), "")
}

type serviceConfigOutput struct {
	ReadHeaders
	Body ServiceConfig
}

func (s *server) getServiceConfig(ctx context.Context, in *struct {
	ReadParams
	Service string `path:"service" doc:"Name of the service."`
},
) (*serviceConfigOutput, error) {
	if err := record.ValidateService("service", in.Service); err != nil {
		return nil, toProblem(err, "path")
	}
	head, err := s.readable(ctx, &in.ReadParams)
	if err != nil {
		return nil, err
	}
	e, ok := s.State().Entry(record.ServiceKey(in.Service))
	if !ok {
		return nil, noService(in.Service)
	}
	rec, err := record.DecodeService(e.Value)
	if err != nil {
		return nil, toProblem(err, "")
	}
	return &serviceConfigOutput{ReadHeaders: head, Body: serviceConfig(rec, e.Index)}, nil
}

type putServiceConfigInput struct {
	Service string `path:"service" doc:"Name of the service."`
	WriteParams
	Body ServiceConfig
}

type putServiceConfigOutput struct {
	WriteHeaders
	Status int
	Body   Registered
}

func (s *server) putServiceConfig(ctx context.Context, in *putServiceConfigInput) (*putServiceConfigOutput, error) {
	if err := record.ValidateService("service", in.Service); err != nil {
		return nil, toProblem(err, "path")
	}
	rec, err := in.Body.service(in.Service)
	if err != nil {
		return nil, toProblem(err, "body")
	}
	res, err := s.Writer.PutService(ctx, in.meta, rec)
	if err != nil {
		return nil, toProblem(err, "body")
	}
	out := &putServiceConfigOutput{WriteHeaders: writtenAt(res.Position), Status: http.StatusOK, Body: Registered{
		Service: in.Service, Class: rec.Class.String(), Generation: res.Position.Generation, Index: res.Position.Index,
	}}
	if res.Created {
		out.Status = http.StatusCreated
	}
	out.Body.Spread = s.spread(ctx, &in.WriteParams, out.WriteHeaders)
	return out, nil
}
