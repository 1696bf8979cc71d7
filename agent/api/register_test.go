package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent/api"
)

func TestRegister(t *testing.T) {
	b := newBench(t)
	r := b.do("POST", "/v1/apps", `{"appId":"checkout","ip":"10.0.0.9"}`)
	if r.status != http.StatusCreated {
		t.Fatalf("new: got %d %s", r.status, r.text)
	}
	var got api.Registered
	b.into(r, &got)
	index := got.Index
	want := api.Registered{Service: "checkout", ID: "10.0.0.9", Class: "critical", Generation: 1, Index: index}
	if got != want || index == 0 {
		t.Errorf("new: got %+v, want %+v", got, want)
	}
	if got := r.header.Get("X-Fluid-Index"); got != fmt.Sprint(index) {
		t.Errorf("X-Fluid-Index: got %q, want %d", got, index)
	}
	before := b.store.State().Position()
	if r := b.do("POST", "/v1/apps", `{"appId":"checkout","ip":"10.0.0.9"}`); r.status != http.StatusOK {
		t.Errorf("unchanged: got %d %s", r.status, r.text)
	}
	if after := b.store.State().Position(); after != before {
		t.Errorf("unchanged wrote an entry: %s after %s", after, before)
	}
	if r := b.do("POST", "/v1/apps", `{"appId":"checkout","ip":"10.0.0.9","weight":7}`); r.status != http.StatusOK {
		t.Errorf("changed: got %d %s", r.status, r.text)
	}
	r = b.do("POST", "/v1/apps", `[{"appId":"web","ip":"10.0.0.1","port":80},{"appId":"db","host":"db.example.org"}]`)
	var list []api.Registered
	b.into(r, &list)
	if r.status != http.StatusCreated || len(list) != 2 || list[0].ID != "10.0.0.1-80" || list[1].ID != "db" || list[0].Index != list[1].Index {
		t.Errorf("batch: got %d %+v", r.status, list)
	}
}

// curl -d sends a form's content type; the original's users do not set another.
func TestRegisterLikeCurl(t *testing.T) {
	b := newBench(t)
	r := b.do("POST", "/v1/apps", `{"appId":"checkout","ip":"10.0.0.9"}`, "Content-Type", "application/x-www-form-urlencoded")
	if r.status != http.StatusCreated {
		t.Errorf("got %d %s", r.status, r.text)
	}
}

func TestRefused(t *testing.T) {
	b := newBench(t)
	if r := b.do("POST", "/v1/apps", `{"appId":"taken","ip":"10.0.0.9"}`, "Idempotency-Key", "k1"); r.status != http.StatusCreated {
		t.Fatal(r.text)
	}
	items := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`{"appId":"web","ip":"10.0.%d.%d"}`, i/250, i%250+1))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	meta := func(size int) string {
		var pairs []string
		for i := range size / 100 {
			pairs = append(pairs, fmt.Sprintf(`"key%02d":"%s"`, i, strings.Repeat("x", 100)))
		}
		return strings.Join(pairs, ",")
	}
	for _, tc := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		typ, location            string
		text                     string // in the message or the detail
	}{
		{name: "unknown field", body: `{"appId":"web","ip":"10.0.0.1","colour":"red"}`, status: 400, typ: "invalid", location: "body.colour", text: "not a known field"},
		{name: "wrong case", body: `{"appid":"web","ip":"10.0.0.1"}`, status: 400, typ: "invalid", location: "body.appId", text: "is missing"},
		{name: "bad ip", body: `{"appId":"web","ip":"300.0.0.1"}`, status: 400, typ: "invalid", location: "body.ip", text: "use an IPv4 or IPv6 address"},
		{name: "link-local ip", body: `{"appId":"web","ips":["10.0.0.1","169.254.0.1"]}`, status: 400, typ: "invalid", location: "body.ips[1]", text: "link-local"},
		{name: "no address", body: `{"appId":"web"}`, status: 400, typ: "invalid", location: "body.ip", text: "is missing"},
		{name: "capitals", body: `{"appId":"Web","ip":"10.0.0.1"}`, status: 400, typ: "invalid", location: "body.appId", text: "lower-case"},
		{name: "dot", body: `{"appId":"web.prod","ip":"10.0.0.1"}`, status: 400, typ: "invalid", location: "body.appId", text: "lower-case"},
		{name: "reserved", body: `{"appId":"dns","ip":"10.0.0.1"}`, status: 400, typ: "invalid", location: "body.appId", text: "reserved"},
		{name: "id no label", body: `{"appId":"web","ip":"10.0.0.1","id":"a_b"}`, status: 400, typ: "invalid", location: "body.id", text: "label"},
		{name: "bad ttl", body: `{"appId":"web","ip":"10.0.0.1","ttl":"5"}`, status: 400, typ: "invalid", location: "body.ttl", text: "duration"},
		{name: "fraction of a ttl", body: `{"appId":"web","ip":"10.0.0.1","ttl":"1500ms"}`, status: 400, typ: "invalid", location: "body.ttl", text: "whole seconds"},
		{name: "bad expires", body: `{"appId":"web","ip":"10.0.0.1","expires":"soon"}`, status: 400, typ: "invalid", location: "body.expires", text: "duration"},
		{name: "port range", body: `{"appId":"web","ip":"10.0.0.1","port":70000}`, status: 400, typ: "invalid", location: "body.port", text: "65535"},
		{name: "named port", body: `{"appId":"web","ip":"10.0.0.1","ports":{"http":"80/sctp"}}`, status: 400, typ: "invalid", location: "body.ports.http", text: "NUMBER/udp"},
		{name: "wrong type", body: `{"appId":"web","ip":10}`, status: 400, typ: "invalid", location: "body.ip", text: "expected string"},
		{name: "item of a batch", body: `[{"appId":"web","ip":"10.0.0.1"},{"appId":"web","ip":"x"}]`, status: 400, typ: "invalid", location: "body[1].ip"},
		{name: "no JSON", body: `{"appId":`, status: 400, typ: "invalid", text: "not JSON"},
		{name: "empty", body: ``, status: 400, typ: "invalid", text: "the body is empty"},
		{name: "empty name", body: `{"appId":"","ip":"10.0.0.1"}`, status: 400, typ: "invalid", location: "body.appId", text: "is empty"},
		{name: "no name to explain", method: "GET", path: "/v1/explain", status: 400, typ: "invalid", location: "query.name", text: "is missing"},
		{name: "ack", method: "PUT", path: "/v1/services/cache/instances/x?ack=all", body: `{"ip":"10.0.0.1"}`, status: 400, typ: "invalid", location: "query.ack", text: "mesh:K"},
		{name: "remove the only voter", path: "/v1/raft/remove", body: `{"server":"node1"}`, status: 409, typ: "conflict", text: "only voter"},
		{name: "nobody to lead", path: "/v1/raft/transfer", body: `{}`, status: 409, typ: "conflict", text: "no other server"},
		{name: "empty array", body: `[]`, status: 400, typ: "invalid", text: "at least one"},
		{name: "two ids with one host label", body: `{"appId":"taken","ip":"10.0.0.8","id":"10-0-0-9"}`, status: 409, typ: "conflict", text: "10-0-0-9"},
		{name: "1001 items", body: items(1001), status: 413, typ: "too-large", text: "1000"},
		{name: "2 KiB record", body: `{"appId":"web","ip":"10.0.0.1","meta":{` + meta(2048) + `}}`, status: 413, typ: "too-large", text: "1024"},
		{name: "huge body", body: `{"appId":"` + strings.Repeat("x", 5<<20) + `"}`, status: 413, typ: "too-large"},
		{name: "key reused", body: `{"appId":"other","ip":"10.0.0.9"}`, header: []string{"Idempotency-Key", "k1"}, status: 422, typ: "key-reused"},
		{name: "stale If-Match", body: `{"appId":"taken","ip":"10.0.0.9","weight":3}`, header: []string{"If-Match", "1"}, status: 412, typ: "precondition"},
		{name: "bad If-Match", body: `{"appId":"taken","ip":"10.0.0.9"}`, header: []string{"If-Match", "abc"}, status: 400, typ: "invalid", location: "header.If-Match"},
		{name: "check of two kinds", body: `{"appId":"web","ip":"10.0.0.1","checks":[{"tcp":"10.0.0.1:80","ttl":"5s"}]}`, status: 400, typ: "invalid", location: "body.checks[0]", text: "exactly one"},
		{name: "check interval", body: `{"appId":"web","ip":"10.0.0.1","checks":[{"tcp":"10.0.0.1:80"},{"tcp":"a:1","interval":"10"}]}`, status: 400, typ: "invalid", location: "body.checks[1].interval", text: "duration"},
		{name: "check URL", body: `{"appId":"web","ip":"10.0.0.1","checks":[{"http":"localhost:80"}]}`, status: 400, typ: "invalid", location: "body.checks[0].http", text: "URL"},
		{name: "check threshold", body: `{"appId":"web","ip":"10.0.0.1","checks":[{"tcp":"a:1","failureThreshold":101}]}`, status: 400, typ: "invalid", location: "body.checks[0].failureThreshold"},
		{name: "unknown query", path: "/v1/apps?wiat=everywhere", body: `{"appId":"web","ip":"10.0.0.1"}`, status: 400, typ: "invalid", location: "query.wiat"},
		{name: "bad wait", path: "/v1/apps?wait=nowhere", body: `{"appId":"web","ip":"10.0.0.1"}`, status: 400, typ: "invalid", location: "query.wait", text: "committed"},
		{name: "other content type", body: `<a/>`, header: []string{"Content-Type", "text/xml"}, status: 400, typ: "invalid"},
		{name: "no app", method: "DELETE", path: "/v1/apps/nosuch", status: 404, typ: "not-found"},
		{name: "no instance", method: "DELETE", path: "/v1/apps/taken/instances/10.0.0.7", status: 404, typ: "not-found"},
		{name: "no service", method: "GET", path: "/v1/services/nosuch", status: 404, typ: "not-found"},
		{name: "no overlay", method: "DELETE", path: "/v1/overlays/nosuch", status: 404, typ: "not-found"},
		{name: "no path", method: "GET", path: "/v2/apps", status: 404, typ: "not-found", text: "/openapi.json"},
		{name: "method", method: "PATCH", path: "/v1/apps", status: 405},
		{name: "overlay without target", path: "/v1/overlays", body: `{"kind":"drain"}`, status: 400, typ: "invalid", location: "body.service"},
		{name: "overlay of no kind", path: "/v1/overlays", body: `{"kind":"pause","service":"taken"}`, status: 400, typ: "invalid", location: "body.kind"},
		{name: "page of 0", method: "GET", path: "/v1/services?limit=0", status: 400, typ: "invalid", location: "query.limit"},
		{name: "status filter", method: "GET", path: "/v1/services/taken?status=up", status: 400, typ: "invalid", location: "query.status"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.in(t)
			before := b.store.State().Position()
			method, path := tc.method, tc.path
			if method == "" {
				method = "POST"
			}
			if path == "" {
				path = "/v1/apps"
			}
			r := b.do(method, path, tc.body, tc.header...)
			if r.status != tc.status {
				t.Fatalf("got status %d, want %d: %s", r.status, tc.status, r.text)
			}
			if ct := r.header.Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("got content type %q", ct)
			}
			var p problem
			b.into(r, &p)
			if p.Status != tc.status || p.Title == "" || tc.typ != "" && p.Type != "urn:fluid:"+tc.typ {
				t.Errorf("got problem %+v, want type %s", p, tc.typ)
			}
			if tc.location != "" && (len(p.Errors) == 0 || p.Errors[0].Location != tc.location) {
				t.Errorf("got errors %+v, want location %s", p.Errors, tc.location)
			}
			if !strings.Contains(r.text, tc.text) {
				t.Errorf("got %s, want %q in it", r.text, tc.text)
			}
			if after := b.store.State().Position(); after != before {
				t.Errorf("the state moved from %s to %s", before, after)
			}
		})
	}
}

func TestIdempotencyKey(t *testing.T) {
	b := newBench(t)
	first := b.do("POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.1","expires":"1h"}`, "Idempotency-Key", "once")
	if first.status != http.StatusCreated {
		t.Fatal(first.text)
	}
	if r := b.do("DELETE", "/v1/apps/web/instances/10.0.0.1", ""); r.status != http.StatusOK {
		t.Fatal(r.text)
	}
	again := b.do("POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.1","expires":"1h"}`, "Idempotency-Key", "once")
	if again.status != first.status || again.text != first.text {
		t.Errorf("repeated: got %d %s, want %d %s", again.status, again.text, first.status, first.text)
	}
	if _, _, ok := b.store.State().Instance("web", "10.0.0.1"); ok {
		t.Error("the repetition registered again")
	}
}
