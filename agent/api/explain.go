package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Explanation says what becomes of a name in DNS, and why.
type Explanation struct {
	Name      string     `json:"name"`
	Service   string     `json:"service" doc:"Service that the name is about; empty if it is none that a service can have."`
	Instance  string     `json:"instance,omitempty" doc:"Host label, where the name is that of one instance."`
	Tags      []string   `json:"tags" nullable:"false" doc:"Tags that an instance must have to be in this answer."`
	Exists    bool       `json:"exists" doc:"If not, DNS answers NXDOMAIN; if so but nothing is answered, NODATA."`
	Note      string     `json:"note,omitempty" doc:"Why the answer holds instances that are not known to be well."`
	Instances []Instance `json:"instances" nullable:"false" doc:"Each instance the name could mean, answered or not, with the reason."`
}

type explainOutput struct {
	ReadHeaders
	Body Explanation
}

func (s *server) explainOps() {
	huma.Register(s.huma, op(http.MethodGet, "/v1/explain", "explain", "What DNS answers to a name, and why each instance is in or out", servicesTag),
		func(ctx context.Context, in *struct {
			ReadParams
			Name string `query:"name" required:"true" doc:"A DNS name, with or without its zone." example:"v2.web.service.fluid.internal"`
			Type string `query:"type" default:"A" doc:"Record type; instances are the same for all."`
		},
		) (*explainOutput, error) {
			head, err := s.readable(ctx, &in.ReadParams)
			if err != nil {
				return nil, err
			}
			return &explainOutput{ReadHeaders: head, Body: s.explain(in.Name)}, nil
		})
}

// explain reads a name of the forms that the plugin answers, from the right:
// service, then ".service" and tags, an instance's host label, or the
// underscored labels of RFC 2782.
func (s *server) explain(name string) Explanation {
	out := Explanation{Name: name, Tags: []string{}, Instances: []Instance{}}
	labels := strings.Split(s.withoutZone(strings.ToLower(name)), ".")
	var left []string
	switch n := len(labels); {
	case n == 2 && labels[0][0:min(1, len(labels[0]))] == "_":
		out.Service = strings.TrimPrefix(labels[0], "_") // _web._tcp
	case n >= 2 && labels[n-1] == "service":
		out.Service, left = labels[n-2], labels[:n-2]
		if strings.HasPrefix(out.Service, "_") && len(left) == 1 {
			out.Service, left = strings.TrimPrefix(left[0], "_"), nil // _web._tcp.service
		}
		out.Tags = append(out.Tags, left...)
	default:
		out.Service, left = labels[n-1], labels[:n-1]
		if len(left) == 1 && !strings.HasPrefix(left[0], "_") {
			out.Instance = left[0]
		}
	}
	if record.ValidateService("name", out.Service) != nil {
		out.Service = ""
		return out
	}
	view, verdicts, ok := s.View.Service(out.Service)
	if !ok {
		return out
	}
	out.Exists, out.Note = true, view.Note
	for _, v := range verdicts {
		in, err := instanceOf(v)
		if err != nil || out.Instance != "" && in.Label != out.Instance ||
			slices.ContainsFunc(out.Tags, func(t string) bool { return !slices.Contains(in.Tags, t) }) {
			continue
		}
		out.Instances = append(out.Instances, in)
	}
	if out.Instance != "" && len(out.Instances) == 0 {
		out.Exists = false
	}
	return out
}

// withoutZone removes the zone that a DNS server at this agent says it serves,
// the longest that fits.
func (s *server) withoutZone(name string) string {
	name = strings.TrimSuffix(name, ".")
	best := ""
	for _, zone := range s.Zones() {
		zone = strings.TrimSuffix(strings.ToLower(zone), ".")
		if len(zone) > len(best) && strings.HasSuffix(name, "."+zone) {
			best = zone
		}
	}
	if best == "" {
		return name
	}
	return strings.TrimSuffix(name, "."+best)
}

// Explain asks what DNS answers to a name, and why.
func (c *Client) Explain(ctx context.Context, name string) (Explanation, error) {
	var out Explanation
	err := c.do(ctx, http.MethodGet, "/v1/explain", url.Values{"name": {name}}, nil, nil, &out)
	return out, err
}
