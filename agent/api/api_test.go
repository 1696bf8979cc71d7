package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent/api"
)

func TestServices(t *testing.T) {
	b := newBench(t)
	body := `[{"appId":"web","ip":"10.0.0.1","port":80,"ports":{"dns":"53/udp","http":8080},"tags":["v1","eu"],"meta":{"a":"b"},"zone":"z1","ttl":"7s","weight":3,"priority":1,"node":"n1"},
		{"appId":"web","ips":["10.0.0.2","fd00::2"],"tags":["v2"]},{"appId":"api","ip":"10.0.0.3"},{"appId":"cache","ip":"10.0.0.4"}]`
	if r := b.do("POST", "/v1/apps", body); r.status != http.StatusCreated {
		t.Fatal(r.text)
	}
	drain := b.do("POST", "/v1/overlays", `{"kind":"drain","service":"web","instance":"10.0.0.2","reason":"upgrade"}`)
	var placed api.Placed
	b.into(drain, &placed)
	if drain.status != http.StatusCreated || placed.ID == "" || placed.Index == 0 {
		t.Fatalf("drain: %d %s", drain.status, drain.text)
	}

	r := b.do("GET", "/v1/services/web", "")
	for header, want := range map[string]string{
		"X-Fluid-Index": fmt.Sprint(placed.Index), "X-Fluid-Generation": "1", "X-Fluid-Stale": "false", "Age": "3",
	} {
		if got := r.header.Get(header); got != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
	want := `{"service":"web","class":"critical","index":` + fmt.Sprint(placed.Index) + `,"stale":false,"instances":[` +
		`{"id":"10.0.0.1-80","label":"10-0-0-1-80","node":"n1","ips":["10.0.0.1"],"port":80,"ports":{"dns":"53/udp","http":8080},"tags":["eu","v1"],"meta":{"a":"b"},"weight":3,"priority":1,"zone":"z1","ttl":"7s","status":"passing","tier":"raft","index":` + fmt.Sprint(placed.Index-1) + `,"answered":true,"overlays":[]},` +
		`{"id":"10.0.0.2","label":"10-0-0-2","node":"","ips":["10.0.0.2","fd00::2"],"port":0,"ports":{},"tags":["v2"],"meta":{},"weight":1,"priority":0,"zone":"","ttl":"","status":"passing","tier":"raft","index":` + fmt.Sprint(placed.Index-1) + `,"answered":false,"reason":"drained by overlay ` + placed.ID + `","overlays":["` + placed.ID + `"]}]}`
	if r.text != want {
		t.Errorf("view:\n got %s\nwant %s", r.text, want)
	}

	for query, want := range map[string]string{
		"?tag=v2": "10.0.0.2", "?zone=z1": "10.0.0.1-80", "?tag=eu&zone=z1&status=passing": "10.0.0.1-80", "?tag=none": "", "?status=critical": "",
	} {
		var s api.Service
		b.into(b.do("GET", "/v1/services/web"+query, ""), &s)
		got := ""
		for _, in := range s.Instances {
			got += in.ID
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}

	var names []string
	for after := ""; ; {
		var page api.ServiceList
		b.into(b.do("GET", "/v1/services?limit=1&after="+after, ""), &page)
		for _, s := range page.Services {
			names = append(names, fmt.Sprintf("%s %d/%d %v", s.Service, s.PassingCount, s.InstanceCount, s.Tags))
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if want := []string{"api 1/1 []", "cache 1/1 []", "web 1/2 [eu v1 v2]"}; !slices.Equal(names, want) {
		t.Errorf("pages: got %q, want %q", names, want)
	}

	if r := b.do("DELETE", "/v1/overlays/"+placed.ID, ""); r.status != http.StatusOK {
		t.Errorf("lift: %d %s", r.status, r.text)
	}
	if r := b.do("DELETE", "/v1/apps/web", ""); r.status != http.StatusOK || r.header.Get("X-Fluid-Index") == "" {
		t.Errorf("deregister: %d %s", r.status, r.text)
	}
	if r := b.do("GET", "/v1/apps/web", ""); r.status != http.StatusNotFound {
		t.Errorf("after deregister: %d %s", r.status, r.text)
	}
	var apps api.AppList
	b.into(b.do("GET", "/v1/apps", ""), &apps)
	if len(apps.Apps) != 2 || apps.Apps[0].AppID != "api" {
		t.Errorf("apps: got %+v", apps)
	}
}

func TestServiceConfig(t *testing.T) {
	b := newBench(t)
	put := b.do("PUT", "/v1/services/web/config", `{"ttl":"3s","negativeTTL":"1s","serveStale":"forever","answerLimit":8,"guard":false}`)
	if put.status != http.StatusCreated {
		t.Fatalf("put: %d %s", put.status, put.text)
	}
	get := b.do("GET", "/v1/services/web/config", "")
	want := `{"class":"critical","ttl":"3s","negativeTTL":"1s","serveStale":"forever","answerLimit":8,"guard":false,"index":` + put.header.Get("X-Fluid-Index") + `}`
	if get.text != want {
		t.Errorf("got %s, want %s", get.text, want)
	}
	if r := b.do("PUT", "/v1/services/web/config", `{"ttl":"3s"}`, "If-Match", "1"); r.status != http.StatusPreconditionFailed {
		t.Errorf("If-Match: got %d %s", r.status, r.text)
	}
}

func TestUnsynced(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.View = unsynced{c.View} })
	for _, path := range []string{"/v1/services", "/v1/services/web", "/v1/apps", "/v1/apps/web", "/v1/overlays", "/v1/services/web/config"} {
		r := b.do("GET", path, "")
		if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" || !strings.Contains(r.text, "urn:fluid:unsynced") {
			t.Errorf("%s: got %d %v %s", path, r.status, r.header, r.text)
		}
	}
}

type unsynced struct{ api.View }

func (unsynced) Status() api.ViewStatus { return api.ViewStatus{} }

func TestToken(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.Token = "s3cret" })
	for _, tc := range []struct {
		name, path string
		header     []string
		want       int
	}{
		{"none", "/v1/services", nil, 401},
		{"wrong", "/v1/services", []string{"Authorization", "Bearer s3cre"}, 401},
		{"no scheme", "/metrics", []string{"Authorization", "Basic s3cret"}, 401},
		{"right", "/v1/services", []string{"Authorization", "Bearer s3cret"}, 200},
		{"metrics", "/metrics", []string{"Authorization", "Bearer s3cret"}, 200},
		{"the document", "/openapi.json", nil, 401},
		{"health", "/healthz", nil, 200},
		{"ready", "/readyz?verbose", nil, 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.in(t)
			if r := b.do("GET", tc.path, "", tc.header...); r.status != tc.want {
				t.Errorf("got %d %s, want %d", r.status, r.text, tc.want)
			}
		})
	}
}

// A page of another site must not register through its visitor's browser.
func TestOtherOrigins(t *testing.T) {
	b := newBench(t)
	for name, header := range map[string][]string{
		"fetch metadata": {"Sec-Fetch-Site", "cross-site"}, "origin": {"Origin", "https://evil.example"},
	} {
		r := b.do("POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.1"}`, header...)
		if r.status != http.StatusForbidden || b.store.State().Instances() != 0 {
			t.Errorf("%s: got %d %s", name, r.status, r.text)
		}
	}
}

func TestClosedStore(t *testing.T) {
	b := newBench(t)
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	r := b.do("POST", "/v1/apps", `{"appId":"web","ip":"10.0.0.1"}`)
	if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", r.status, r.text)
	}
}

func TestHealth(t *testing.T) {
	reasons := []string{}
	b := newBench(t, func(c *api.Config) {
		c.Ready = func() ([]string, map[string]string) { return reasons, map[string]string{"leader": "node1"} }
	})
	for _, tc := range []struct {
		name, path, want string
		reasons          []string
		status           int
	}{
		{"alive", "/healthz", `{"status":"ok","reasons":[]}`, nil, 200},
		{"ready", "/readyz", `{"status":"ready","reasons":[]}`, nil, 200},
		{"verbose", "/readyz?verbose", `{"status":"ready","reasons":[],"checks":{"leader":"node1"}}`, nil, 200},
		{"not ready", "/readyz", `{"status":"not ready","reasons":["no state"]}`, []string{"no state"}, 503},
		{"alive though not ready", "/healthz", `{"status":"ok","reasons":[]}`, []string{"no state"}, 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reasons = tc.reasons
			b := b.in(t)
			if r := b.do("GET", tc.path, ""); r.status != tc.status || r.text != tc.want {
				t.Errorf("got %d %s, want %d %s", r.status, r.text, tc.status, tc.want)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	b := newBench(t)
	b.do("GET", "/v1/services", "")
	b.do("GET", "/nothing/here", "")
	r := b.do("GET", "/metrics", "")
	for _, want := range []string{
		`fluid_http_request_duration_seconds_count{route="GET /v1/services",status="200"} 1`,
		`fluid_http_request_duration_seconds_count{route="other",status="404"} 1`,
	} {
		if !strings.Contains(r.text, want) {
			t.Errorf("no %s in\n%s", want, r.text)
		}
	}
}

// A handler that fails answers a problem and goes on serving.
func TestPanic(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.Raft = func() api.Raft { panic("planted") } })
	if r := b.do("GET", "/v1/raft", ""); r.status != http.StatusInternalServerError || !strings.Contains(r.text, "planted") {
		t.Errorf("got %d %s", r.status, r.text)
	}
	if r := b.do("GET", "/healthz", ""); r.status != http.StatusOK {
		t.Errorf("after the panic: %d", r.status)
	}
}

func TestStarting(t *testing.T) {
	srv := httptest.NewServer(api.Starting())
	defer srv.Close()
	b := &bench{T: t, url: srv.URL, http: srv.Client()}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/v1/services": 503} {
		if r := b.do("GET", path, ""); r.status != want {
			t.Errorf("%s: got %d, want %d", path, r.status, want)
		}
	}
}

// The document must hold together: every reference resolves, every operation
// of the design is there, and the bodies that are written by hand are, too.
func TestOpenAPI(t *testing.T) {
	b := newBench(t)
	r := b.do("GET", "/openapi.json", "")
	var doc struct {
		OpenAPI    string                               `json:"openapi"`
		Paths      map[string]map[string]map[string]any `json:"paths"`
		Components struct {
			Schemas map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal([]byte(r.text), &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("got version %q", doc.OpenAPI)
	}
	for _, want := range []string{
		"post /v1/apps", "get /v1/apps", "get /v1/apps/{app}", "delete /v1/apps/{app}", "delete /v1/apps/{app}/instances/{id}",
		"get /v1/services", "get /v1/services/{service}", "get /v1/services/{service}/config", "put /v1/services/{service}/config",
		"post /v1/overlays", "get /v1/overlays", "delete /v1/overlays/{id}", "get /v1/raft", "get /healthz", "get /readyz", "get /metrics",
	} {
		method, path, _ := strings.Cut(want, " ")
		if doc.Paths[path][method] == nil {
			t.Errorf("no operation %s", want)
		}
	}
	for _, ref := range bytes.Split([]byte(r.text), []byte(`"$ref":"#/components/schemas/`))[1:] {
		name, _, _ := bytes.Cut(ref, []byte(`"`))
		if doc.Components.Schemas[string(name)] == nil {
			t.Errorf("no schema %s", name)
		}
	}
	ids := map[any]string{}
	for path, ops := range doc.Paths {
		for method, op := range ops {
			id := op["operationId"]
			if other := ids[id]; other != "" || id == nil {
				t.Errorf("operation %s %s has the id %v of %s", method, path, id, other)
			}
			ids[id] = method + " " + path
		}
	}
}
