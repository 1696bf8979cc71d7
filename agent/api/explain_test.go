package api_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent/api"
)

func TestExplain(t *testing.T) {
	b := newBench(t)
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
		{"_web._tcp.fluid.internal", "web", true, "+10.0.0.1 -10.0.0.2"},
		{"_web._tcp.service.fluid.internal", "web", true, "+10.0.0.1 -10.0.0.2"},
		{"_http._tcp.web.fluid.internal", "web", true, "+10.0.0.1 -10.0.0.2"},
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
				} else if !strings.HasPrefix(in.Reason, "drained by overlay drain-") {
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
