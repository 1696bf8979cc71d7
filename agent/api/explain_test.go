package api_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent/api"
)

func TestExplain(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.Mesh = alone{} })
	b.do("POST", "/v1/apps", `[{"appId":"web","ip":"10.0.0.1","tags":["v1","eu"]},{"appId":"web","ip":"10.0.0.2","tags":["v2"]}]`)
	b.do("POST", "/v1/overlays", `{"kind":"drain","service":"web","instance":"10.0.0.2"}`)
	for _, tc := range []struct {
		name    string
		service string
		exists  bool
		ids     string // those answered with +, others with -
	}{
		{"web", "web", true, "+10.0.0.1 -10.0.0.2"},
		{"web.fluid.internal.", "web", true, "+10.0.0.1 -10.0.0.2"},
		{"WEB.service.fluid.internal", "web", true, "+10.0.0.1 -10.0.0.2"},
		{"v1.web.service.fluid.internal", "web", true, "+10.0.0.1"},
		{"eu.v1.web.service", "web", true, "+10.0.0.1"},
		{"v9.web.service", "web", true, ""},
		{"10-0-0-2.web.fluid.internal", "web", true, "-10.0.0.2"},
		{"10-0-0-9.web.fluid.internal", "web", false, ""},
		{"_web._tcp.fluid.internal", "web", true, "-10.0.0.1 -10.0.0.2"},
		{"_web._tcp.service.fluid.internal", "web", true, "-10.0.0.1 -10.0.0.2"},
		{"_http._tcp.web.fluid.internal", "web", true, "-10.0.0.1 -10.0.0.2"},
		{"nosuch", "nosuch", false, ""},
		{"", "", false, ""},
		{"..", "", false, ""},
		{"_", "", false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.in(t)
			if tc.name == "" {
				if r := b.do("GET", "/v1/explain", ""); r.status != 400 {
					t.Errorf("got %d %s", r.status, r.text)
				}
				return
			}
			var got api.Explanation
			b.into(b.do("GET", "/v1/explain?name="+url.QueryEscape(tc.name), ""), &got)
			var ids []string
			for _, in := range got.Instances {
				sign := "-"
				if in.Answered {
					sign = "+"
				} else if !strings.HasPrefix(in.Reason, "drained by overlay drain-") && !strings.HasPrefix(in.Reason, "no ") {
					t.Errorf("reason %q", in.Reason)
				}
				ids = append(ids, sign+in.ID)
			}
			if got.Service != tc.service || got.Exists != tc.exists || strings.Join(ids, " ") != tc.ids {
				t.Errorf("got %+v, want %+v", got, tc)
			}
		})
	}
}

// What a name and a type ask for decides who is answered.
func TestExplainForms(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.Mesh = alone{} })
	b.do("POST", "/v1/apps", `[
		{"appId":"web","ip":"10.0.0.1","port":80,"ports":{"https":443,"dns":"53/udp"},"zone":"eu-1"},
		{"appId":"web","ips":["10.0.0.2","fd00::2"],"ports":{"https":8443},"zone":"eu-2"},
		{"appId":"db","host":"db.example.org"}]`)
	for _, tc := range []struct{ name, typ, rcode, want string }{
		{"web", "", "NOERROR", "10.0.0.1-80: 10.0.0.2:"},
		{"web", "a", "NOERROR", "10.0.0.1-80: 10.0.0.2:"},
		{"web", "AAAA", "NOERROR", "10.0.0.1-80:no IPv6 address 10.0.0.2:"},
		{"web", "SRV", "NOERROR", "10.0.0.1-80: 10.0.0.2:no port"},
		{"web", "HTTPS", "NOERROR", "10.0.0.1-80: 10.0.0.2:no port named https with the number 443"},
		{"web", "TXT", "NODATA", "10.0.0.1-80:no record of this type 10.0.0.2:no record of this type"},
		{"10-0-0-2.web", "TXT", "NOERROR", "10.0.0.2:"},
		{"10-0-0-1-80._web._tcp.fluid.internal", "SRV", "NOERROR", "10.0.0.1-80:"},
		{"_web._tcp", "SRV", "NOERROR", "10.0.0.1-80: 10.0.0.2:no port"},
		{"_web._udp", "SRV", "NXDOMAIN", ""},
		{"_dns._udp.web", "SRV", "NOERROR", "10.0.0.1-80: 10.0.0.2:no such port"},
		{"_dns._tcp.web", "SRV", "NODATA", "10.0.0.1-80:no such port 10.0.0.2:no such port"},
		{"_8443._https.web", "HTTPS", "NOERROR", "10.0.0.1-80:no such port 10.0.0.2:"},
		{"eu-2.pin._zone.web", "", "NOERROR", "10.0.0.1-80:not in zone eu-2 10.0.0.2:"},
		{"eu-9.prefer._zone.web", "", "NOERROR", "10.0.0.1-80: 10.0.0.2:"},
		{"_why.web.fluid.internal", "", "NOERROR", "10.0.0.1-80: 10.0.0.2:"},
		{"db", "AAAA", "NOERROR", "db:"},
		{"a.b.c.web", "", "NXDOMAIN", ""},
		{"a.node", "A", "NOERROR", ""},
		{"c.node", "A", "NXDOMAIN", ""},
		{"fluid.internal.", "SOA", "NOERROR", ""},
		{"_services._dns-sd._udp", "PTR", "NOERROR", ""},
		{"9.0.0.10.in-addr.arpa", "PTR", "NOERROR", ""},
	} {
		t.Run(tc.name+" "+tc.typ, func(t *testing.T) {
			b := b.in(t)
			var got api.Explanation
			b.into(b.do("GET", "/v1/explain?name="+url.QueryEscape(tc.name)+"&type="+tc.typ, ""), &got)
			var list []string
			for _, in := range got.Instances {
				if in.Answered != (in.Reason == "") {
					t.Errorf("answered %v, because %q", in.Answered, in.Reason)
				}
				list = append(list, in.ID+":"+in.Reason)
			}
			if got.Rcode != tc.rcode || strings.Join(list, " ") != tc.want || got.Exists != (tc.rcode != "NXDOMAIN") {
				t.Errorf("got %s %q %+v, want %s %q", got.Rcode, list, got, tc.rcode, tc.want)
			}
		})
	}
	if r := b.do("GET", "/v1/explain?name=web&type=BOGUS", ""); r.status != 400 || !strings.Contains(r.text, "query.type") {
		t.Errorf("got %d %s", r.status, r.text)
	}
}
