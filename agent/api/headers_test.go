package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/plugin/catalog"
)

// Every answer below /v1 says which index it goes with, every read how old it
// is, whatever operation answers and whether it succeeds.
func TestHeaders(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.Mesh = alone{} })
	for _, tc := range []struct{ method, path, body string }{
		{"POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.1"}`},
		{"GET", "/v1/apps", ""},
		{"GET", "/v1/apps/web", ""},
		{"GET", "/v1/services/nosuch", ""},
		{"GET", "/v1/sd/prometheus", ""},
		{"GET", "/v1/keys", ""},
		{"POST", "/v1/keys", `{"action":"add","key":"00112233445566778899aabbccddeeff"}`},
		{"GET", "/v1/nodes", ""},
		{"GET", "/v1/members", ""},
		{"GET", "/v1/raft", ""},
		{"POST", "/v1/raft/transfer", `{}`},
		{"POST", "/v1/mesh/join", `{"addrs":["127.0.0.1:7946"]}`},
		{"GET", "/v1/snapshot", ""},
		{"DELETE", "/v1/apps/web", ""},
	} {
		r := b.do(tc.method, tc.path, tc.body)
		want := []string{"X-Fluid-Index", "X-Fluid-Generation"}
		if tc.method == "GET" {
			want = append(want, "X-Fluid-Stale", "Age")
		}
		for _, h := range want {
			if got := r.header.Values(h); len(got) != 1 {
				t.Errorf("%s %s: %s: got %q", tc.method, tc.path, h, got)
			}
		}
	}
	if r := b.do("GET", "/healthz", ""); r.header.Get("X-Fluid-Index") != "" {
		t.Errorf("healthz: got %v", r.header)
	}
}

// alone is the mesh of an agent that is in none.
type alone struct{ api.Mesh }

func (alone) Nodes() []api.Node {
	return []api.Node{{Name: "b", Origin: "2"}, {Name: "a", Origin: "1"}}
}
func (alone) Keys() []api.Key { return []api.Key{} }

func TestMemberPages(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.Mesh = alone{} })
	var got []string
	for after := ""; ; {
		var page api.MemberList
		b.into(b.do("GET", "/v1/members?limit=2&after="+after, ""), &page)
		for _, m := range page.Members {
			got = append(got, m.ID)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if want := []string{"b", "a", "c"}; !slices.Equal(got, want) {
		t.Errorf("members: got %q, want %q", got, want)
	}
	var nodes api.NodeList
	b.into(b.do("GET", "/v1/nodes?limit=1", ""), &nodes)
	if len(nodes.Nodes) != 1 || nodes.Nodes[0].Name != "a" || nodes.Next != "1" {
		t.Errorf("nodes: got %+v", nodes)
	}
}

// The original's path takes what the newer one does.
func TestAppReads(t *testing.T) {
	b := newBench(t)
	done := b.do("POST", "/v1/apps", `[{"appId":"web","ip":"10.0.0.1","tags":["v1"]},{"appId":"web","ip":"10.0.0.2"}]`)
	var s api.Service
	b.into(b.do("GET", "/v1/apps/web?tag=v1&wait=10ms&index="+done.header.Get("X-Fluid-Index"), ""), &s)
	if len(s.Instances) != 1 || s.Instances[0].ID != "10.0.0.1" {
		t.Errorf("got %+v", s.Instances)
	}
}

// gossiped is a view in which somebody vouches for an instance of cache.
type gossiped struct{ api.View }

func (v gossiped) Service(name string) (*catalog.Service, []catalog.Verdict, bool) {
	s, verdicts, ok := v.View.Service(name)
	if !ok && name == "cache" {
		return &catalog.Service{Name: name}, []catalog.Verdict{{Answered: true}}, true
	}
	return s, verdicts, ok
}

// Committing an instance of a service that gossip carries would hide what is
// registered there.
func TestClassClash(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.View = gossiped{c.View} })
	r := b.do("POST", "/v1/apps", `[{"appId":"web","ip":"10.0.0.1"},{"appId":"cache","ip":"10.0.0.1"}]`)
	if r.status != http.StatusConflict || !strings.Contains(r.text, "service cache is ephemeral") {
		t.Errorf("got %d %s", r.status, r.text)
	}
	if r := b.do("GET", "/v1/services/web", ""); r.status != http.StatusNotFound {
		t.Errorf("half of it is committed: %s", r.text)
	}
	if r := b.do("PUT", "/v1/services/cache/config", `{"class":"critical"}`); r.status != http.StatusCreated {
		t.Fatal(r.text)
	}
	if r := b.do("POST", "/v1/apps", `{"appId":"cache","ip":"10.0.0.1"}`); r.status != http.StatusCreated {
		t.Errorf("once it is critical: got %d %s", r.status, r.text)
	}
}
