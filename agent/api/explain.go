package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Explanation says what becomes of a name in DNS, and why.
type Explanation struct {
	Name      string     `json:"name"`
	Type      string     `json:"type,omitempty" doc:"Record type asked for; empty: whatever the name has."`
	Rcode     string     `json:"rcode" enum:"NOERROR,NODATA,NXDOMAIN" doc:"What DNS answers."`
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
			Type string `query:"type" doc:"Record type, such as AAAA. Default: whatever the name has."`
		},
		) (*explainOutput, error) {
			typ := strings.ToUpper(in.Type)
			if typ != "" && !slices.Contains(explainable, typ) {
				return nil, toProblem(field("type", in.Type, "is not a type that is answered", "use one of "+strings.Join(explainable, ", ")), "query")
			}
			head, err := s.readable(ctx, &in.ReadParams)
			if err != nil {
				return nil, err
			}
			return &explainOutput{ReadHeaders: head, Body: s.explain(in.Name, typ)}, nil
		})
}

// explain says what becomes of a name; an empty typ means whatever the name has.
func (s *server) explain(name, typ string) Explanation {
	out := Explanation{Name: name, Type: typ, Rcode: "NXDOMAIN", Tags: []string{}, Instances: []Instance{}}
	q, note := s.readName(strings.ToLower(strings.TrimSuffix(name, ".")))
	out.Service, out.Instance, out.Tags = q.service, q.label, append(out.Tags, q.tags...)
	if note != "" {
		out.Exists, out.Note, out.Rcode = true, note, "NOERROR"
		return out
	}
	if record.ValidateService("name", q.service) != nil {
		out.Service = ""
		return out
	}
	view, verdicts, ok := s.View.Service(q.service)
	if !ok || q.none {
		return out
	}
	out.Exists, out.Note, out.Rcode = q.label == "", view.Note, "NODATA"
	for _, v := range verdicts {
		in, err := instanceOf(v)
		if err != nil || q.label != "" && in.Label != q.label ||
			slices.ContainsFunc(q.tags, func(t string) bool { return !slices.Contains(in.Tags, t) }) {
			continue
		}
		out.Exists = true
		if why := q.lacks(&in, typ); in.Answered && why != "" {
			in.Answered, in.Reason = false, why
		}
		if in.Answered {
			out.Rcode = "NOERROR"
		}
		out.Instances = append(out.Instances, in)
	}
	if !out.Exists {
		out.Rcode = "NXDOMAIN"
	}
	return out
}

// question is what a name asks of the instances of a service.
type question struct {
	service, label string
	tags           []string
	ported         bool         // only instances with a port
	port           string       // name of a port
	proto          record.Proto // of the named port
	number         string       // of the named port
	pin            string       // failure domain
	none           bool         // no name of this form exists
}

// readName reads a name of the forms that the plugin answers. note says what
// the name is if it is about no service.
func (s *server) readName(name string) (q question, note string) {
	name = strings.TrimPrefix(name, "_why.")
	if slices.ContainsFunc(s.Zones(), func(zone string) bool { return strings.EqualFold(strings.TrimSuffix(zone, "."), name) }) {
		return q, "a zone: SOA and NS"
	}
	if strings.HasSuffix(name, ".in-addr.arpa") || strings.HasSuffix(name, ".ip6.arpa") {
		return q, "an address: PTR, where the Corefile has its zone; dig TXT _why." + name + " asks the DNS server"
	}
	labels := strings.Split(s.withoutZone(name), ".")
	n := len(labels)
	under := func(i int) bool { return i < n && strings.HasPrefix(labels[i], "_") }
	proto := func(i int) bool { return i < n && (labels[i] == "_tcp" || labels[i] == "_udp") }
	switch {
	case n == 3 && labels[1] == "_dns-sd":
		return q, "the list of services for browsing: PTR"
	case n == 2 && labels[1] == "node":
		q.none = true
		for _, node := range s.Mesh.Nodes() {
			if node.Name == labels[0] && node.State != "dead" {
				return q, "a node, with the addresses " + strings.Join(node.Addrs, ", ")
			}
		}
	case n == 2 && under(0): // _web._tcp
		q.service, q.ported, q.none = labels[0][1:], true, labels[1] != "_tcp"
	case n == 3 && under(0) && proto(1) && labels[2] == "service":
		q.service, q.ported, q.none = labels[0][1:], true, labels[1] != "_tcp"
	case n == 3 && !under(0) && under(1) && proto(2): // 10-0-0-9._web._tcp
		q.service, q.label, q.ported, q.none = labels[1][1:], labels[0], true, labels[2] != "_tcp"
	case n == 3 && under(0) && proto(1): // _http._tcp.web
		q.service, q.port = labels[2], labels[0][1:]
		if labels[1] == "_udp" {
			q.proto = record.UDP
		}
	case n == 3 && under(0) && under(1): // _8443._https.web
		q.service, q.port, q.number = labels[2], labels[1][1:], labels[0][1:]
	case n == 4 && labels[2] == "_zone" && (labels[1] == "pin" || labels[1] == "prefer"):
		if q.service = labels[3]; labels[1] == "pin" {
			q.pin = labels[0]
		}
	case n >= 2 && labels[n-1] == "service":
		q.service, q.tags = labels[n-2], labels[:n-2]
	case n <= 2:
		if q.service = labels[n-1]; n == 2 {
			q.label = labels[0]
		}
	default:
		q.service, q.none = labels[n-1], true
	}
	return q, ""
}

// lacks says what an instance has not that the name or the type asks for.
func (q *question) lacks(in *Instance, typ string) string {
	p, named := in.Ports[q.port]
	switch {
	case q.pin != "" && in.Zone != q.pin:
		return "not in zone " + q.pin
	case q.port != "" && (!named || p.Proto != q.proto || q.number != "" && q.number != strconv.Itoa(int(p.Number))):
		return "no such port"
	case (q.ported || typ == "SRV" && q.port == "") && in.Port == 0:
		return "no port"
	case in.Host != "": // a CNAME, whatever the type
		return ""
	case typ == "A" && !slices.ContainsFunc(in.IPs, isIPv4):
		return "no IPv4 address"
	case typ == "AAAA" && !slices.ContainsFunc(in.IPs, func(ip string) bool { return !isIPv4(ip) }):
		return "no IPv6 address"
	case typ == "TXT" && q.label == "", typ == "PTR" && !q.ported, typ == "CNAME", typ == "SOA", typ == "NS":
		return "no record of this type"
	case (typ == "A" || typ == "AAAA") && (q.ported || q.port != ""):
		return "no record of this type"
	case typ == "HTTPS" && q.port == "" && in.Ports["https"].Number != 443:
		return "no port named https with the number 443"
	case typ == "SVCB" && q.number == "":
		return "no record of this type"
	}
	return ""
}

func isIPv4(ip string) bool { return !strings.Contains(ip, ":") }

// explainable are the types that a name can be asked for.
var explainable = []string{"A", "AAAA", "ANY", "CNAME", "HTTPS", "NS", "PTR", "SOA", "SRV", "SVCB", "TXT"}

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

// Explain asks what DNS answers to a name, and why. typ may be empty.
func (c *Client) Explain(ctx context.Context, name, typ string) (Explanation, error) {
	var out Explanation
	err := c.do(ctx, http.MethodGet, "/v1/explain", url.Values{"name": {name}, "type": {typ}}, nil, nil, &out)
	return out, err
}
