package agenttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// problem is the part of an RFC 9457 answer that the tests look at.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
}

// says reports whether any part of the problem contains text.
func (p problem) says(text string) bool {
	all := p.Title + " " + p.Detail
	for _, e := range p.Errors {
		all += " " + e.Location + " " + e.Message
	}
	return strings.Contains(all, text)
}

// items is a JSON array of n registrations, each with extra in it.
func items(n int, extra string) string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(`{"appId":"batch","ip":"10.9.%d.%d"%s}`, i>>8, i&255, extra)
	}
	return "[" + strings.Join(out, ",") + "]"
}

// TestBadRequests sends what must be refused: each with the right status, a
// problem that names the field and the fix, and nothing applied.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startAgent()
	h.register("checkout", "10.0.0.9")
	if code, body := h.call(http.MethodPost, "/v1/apps", `{"appId":"keyed","ip":"10.0.0.7"}`, "Idempotency-Key: k1"); code != http.StatusCreated {
		t.Fatalf("keyed registration: got %d %s", code, body)
	}
	big := strings.Repeat("x", 2000)
	meta := `,"meta":{"a":"` + strings.Repeat("x", 250) + `","b":"` + strings.Repeat("x", 250) + `","c":"` + strings.Repeat("x", 200) + `"}`
	tests := []struct {
		name   string
		method string // default POST
		path   string // default /v1/apps
		body   string
		header string
		status int
		want   []string // parts of the problem
	}{
		{name: "unknown field", body: `{"appId":"a","ip":"10.0.0.1","colour":"red"}`, status: 400, want: []string{"body.colour", "remove it"}},
		{name: "field in another case", body: `{"appid":"a","ip":"10.0.0.1"}`, status: 400, want: []string{"appid"}},
		{name: "no JSON", body: `{"appId":`, status: 400},
		{name: "no body", status: 400},
		{name: "no name", body: `{"ip":"10.0.0.1"}`, status: 400, want: []string{"appId"}},
		{name: "no address", body: `{"appId":"a"}`, status: 400, want: []string{"ip"}},
		{name: "bad IP", body: `{"appId":"a","ip":"10.0.0.256"}`, status: 400, want: []string{"body.ip", "10.0.0.9"}},
		{name: "unspecified IP", body: `{"appId":"a","ip":"0.0.0.0"}`, status: 400, want: []string{"body.ip"}},
		{name: "multicast IP", body: `{"appId":"a","ip":"ff02::1"}`, status: 400, want: []string{"body.ip"}},
		{name: "link-local IP", body: `{"appId":"a","ip":"169.254.1.1"}`, status: 400, want: []string{"body.ip"}},
		{name: "IP with a zone", body: `{"appId":"a","ip":"fe80::1%eth0"}`, status: 400, want: []string{"body.ip"}},
		{name: "name with capitals", body: `{"appId":"Checkout","ip":"10.0.0.1"}`, status: 400, want: []string{"body.appId", "lower-case"}},
		{name: "name with a dot", body: `{"appId":"check.out","ip":"10.0.0.1"}`, status: 400, want: []string{"body.appId", "hyphens"}},
		{name: "name too long", body: `{"appId":"` + strings.Repeat("a", 63) + `","ip":"10.0.0.1"}`, status: 400, want: []string{"body.appId", "62"}},
		{name: "reserved name", body: `{"appId":"node","ip":"10.0.0.1"}`, status: 400, want: []string{"body.appId", "reserved"}},
		{name: "id that is no label", body: `{"appId":"a","id":"a_b","ip":"10.0.0.1"}`, status: 400, want: []string{"body.id", "label"}},
		{name: "two ids with one host label", body: `{"appId":"checkout","id":"10-0-0-9","ip":"10.0.0.1"}`, status: 409, want: []string{"10-0-0-9"}},
		{name: "two ids with one host label in a batch", body: `[{"appId":"a","id":"10.0.0.1","ip":"10.0.0.1"},{"appId":"a","id":"10-0-0-1","ip":"10.0.0.1"}]`, status: 409, want: []string{"10-0-0-1"}},
		{name: "one bad item of a batch", body: `[{"appId":"a","ip":"10.0.0.1"},{"appId":"a","ip":"nowhere"}]`, status: 400, want: []string{"body[1].ip"}},
		{name: "empty batch", body: `[]`, status: 400},
		{name: "1,001 items", body: items(1001, ""), status: 413, want: []string{"1000"}},
		{name: "batch above 512 KiB", body: items(1000, meta), status: 413, want: []string{"split it"}},
		{name: "2 KiB record", body: `{"appId":"a","ip":"10.0.0.1","meta":{"k":"` + big + `"}}`, status: 413},
		{name: "body above any limit", body: `{"appId":"` + strings.Repeat("a", 5<<20) + `"}`, status: 413},
		{name: "key with another body", body: `{"appId":"keyed","ip":"10.0.0.8"}`, header: "Idempotency-Key: k1", status: 422, want: []string{"Idempotency-Key"}},
		{name: "key too long", body: `{"appId":"a","ip":"10.0.0.1"}`, header: "Idempotency-Key: " + strings.Repeat("k", 300), status: 400, want: []string{"Idempotency-Key"}},
		{name: "stale If-Match", body: `{"appId":"checkout","ip":"10.0.0.9","port":80}`, header: "If-Match: 1", status: 412, want: []string{"If-Match"}},
		{name: "If-Match that is no number", body: `{"appId":"checkout","ip":"10.0.0.9","port":80}`, header: "If-Match: abc", status: 400, want: []string{"If-Match"}},
		{name: "unknown wait", path: "/v1/apps?wait=forever", body: `{"appId":"a","ip":"10.0.0.1"}`, status: 400, want: []string{"wait"}},
		{name: "bad timeout", path: "/v1/apps?timeout=soon", body: `{"appId":"a","ip":"10.0.0.1"}`, status: 400, want: []string{"query.timeout"}},
		{name: "unknown parameter", path: "/v1/apps?wiat=committed", body: `{"appId":"a","ip":"10.0.0.1"}`, status: 400, want: []string{"wiat"}},
		{name: "port out of range", body: `{"appId":"a","ip":"10.0.0.1","port":65536}`, status: 400, want: []string{"body.port"}},
		{name: "negative weight", body: `{"appId":"a","ip":"10.0.0.1","weight":-1}`, status: 400, want: []string{"body.weight"}},
		{name: "ttl that is no duration", body: `{"appId":"a","ip":"10.0.0.1","ttl":"5"}`, status: 400, want: []string{"body.ttl"}},
		{name: "bad tag", body: `{"appId":"a","ip":"10.0.0.1","tags":["ok","No"]}`, status: 400, want: []string{"body.tags[1]"}},
		{name: "host and ip", body: `{"appId":"a","ip":"10.0.0.1","host":"db.example.org"}`, status: 400, want: []string{"host"}},
		{name: "delete of nothing", method: http.MethodDelete, path: "/v1/apps/nothing", status: 404, want: []string{"nothing"}},
		{name: "delete of no instance", method: http.MethodDelete, path: "/v1/apps/checkout/instances/10.0.0.1", status: 404, want: []string{"10.0.0.1"}},
		{name: "get of nothing", method: http.MethodGet, path: "/v1/services/nothing", status: 404, want: []string{"nothing"}},
		{name: "unknown path", method: http.MethodGet, path: "/v1/servces", status: 404},
		{name: "wrong method", method: http.MethodPut, path: "/v1/apps", status: 405},
	}
	before := h.everything()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method, path, header := tt.method, tt.path, tt.header
			if method == "" {
				method = http.MethodPost
			}
			if path == "" {
				path = "/v1/apps"
			}
			if header == "" {
				header = "Accept: application/json"
			}
			code, body := h.call(method, path, tt.body, header)
			var p problem
			if err := json.Unmarshal([]byte(body), &p); err != nil || code != tt.status || p.Status != tt.status {
				t.Fatalf("got %d %.500s, want a problem with status %d", code, body, tt.status)
			}
			if p.Title == "" || p.Detail == "" && len(p.Errors) == 0 {
				t.Errorf("got %.500s, want a title and a reason", body)
			}
			for _, want := range tt.want {
				if !p.says(want) {
					t.Errorf("got %.500s, want it to say %q", body, want)
				}
			}
			if got := h.everything(); got != before {
				t.Errorf("the request was applied:\n%s\nbefore:\n%s", got, before)
			}
		})
	}
}

// everything returns all services of the host with their instances, whether
// the agent knows them to be current or not.
func (h *host) everything() string {
	h.t.Helper()
	code, list := h.call(http.MethodGet, "/v1/services?limit=1000", "")
	var page struct {
		Services []struct {
			Service string `json:"service"`
		} `json:"services"`
	}
	if err := json.Unmarshal([]byte(list), &page); err != nil || code != http.StatusOK {
		h.t.Fatalf("list services: got %d %s", code, list)
	}
	out := list
	for _, s := range page.Services {
		code, body := h.call(http.MethodGet, "/v1/services/"+s.Service, "")
		if code != http.StatusOK {
			h.t.Fatalf("get %s: got %d %s", s.Service, code, body)
		}
		out += body
	}
	return strings.ReplaceAll(out, `"stale":true`, `"stale":false`)
}
