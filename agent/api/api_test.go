package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is one handler over a real store.
type bench struct {
	*testing.T
	store   *store.Store
	handler http.Handler
	url     string
	http    *http.Client
}

func newBench(t *testing.T, edit ...func(*api.Config)) *bench {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(store.Config{
		Dir: t.TempDir(), Logger: log, Name: "node1", Bootstrap: true,
		Transport: func(string) (raft.Transport, error) {
			_, tr := raft.NewInmemTransport("")
			tr.Connect(tr.LocalAddr(), tr) // so that the store hastens its election
			return tr, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	reg := prometheus.NewRegistry()
	cfg := api.Config{
		Writer: s, Cluster: s, View: freshView{s},
		Everywhere: func(context.Context, record.Position) api.Spread {
			return api.Spread{Everywhere: true, ClientTTL: "5s"}
		},
		Local:   func(context.Context, record.Position) api.Applied { return api.Applied{} },
		Zones:   func() []string { return []string{"fluid.internal."} },
		Members: func() []api.Member { return []api.Member{} },
		State:   s.State, Metrics: reg, Gatherer: reg, Log: log, Now: time.Now, Version: "test",
		Raft:  func() api.Raft { return api.Raft{State: s.Status().State, Servers: []api.RaftServer{}} },
		Ready: func() ([]string, map[string]string) { return nil, map[string]string{"leader": "node1"} },
	}
	for _, e := range edit {
		e(&cfg)
	}
	h := api.New(cfg)
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	deadline := time.After(10 * time.Second)
	for !s.IsLeader() { // the store says so through its state
		select {
		case <-s.Changed(s.State().Position()):
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatal("no leader within 10 s")
		}
	}
	return &bench{t, s, h, srv.URL, srv.Client()}
}

// freshView computes the view anew for each question.
type freshView struct{ *store.Store }

func (v freshView) catalog() *catalog.Catalog {
	c := catalog.New()
	st := v.State()
	if _, err := c.Replace(st.Position(), st.Entries()); err != nil {
		panic(err)
	}
	return c
}

func (v freshView) Status() api.ViewStatus {
	return api.ViewStatus{Position: v.State().Position(), Synced: true, Age: 3 * time.Second}
}

func (v freshView) Names(after string, limit int) []string {
	names := slices.Sorted(v.catalog().Services())
	i, found := slices.BinarySearch(names, after)
	if found {
		i++
	}
	return names[i:min(len(names), i+limit)]
}

func (v freshView) Service(name string) (*catalog.Service, []catalog.Verdict, bool) {
	c := v.catalog()
	s, ok := c.View(name)
	return s, c.Verdicts(name), ok
}

// in is the same bench for a subtest.
func (b *bench) in(t *testing.T) *bench {
	sub := *b
	sub.T = t
	return &sub
}

// reply is an answer with its body read.
type reply struct {
	status int
	header http.Header
	text   string
}

func (b *bench) do(method, path, body string, header ...string) reply {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, strings.TrimSpace(string(text))}
}

// into decodes the body and fails on a field that v does not have.
func (b *bench) into(r reply, v any) {
	b.Helper()
	dec := json.NewDecoder(strings.NewReader(r.text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		b.Fatalf("decode %s: %v", r.text, err)
	}
}

type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Errors []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
		Value    any    `json:"value"`
	} `json:"errors"`
}

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
		{name: "wrong case", body: `{"appid":"web","ip":"10.0.0.1"}`, status: 400, typ: "invalid", location: "body", text: "appId"},
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
		{name: "named port", body: `{"appId":"web","ip":"10.0.0.1","ports":{"http":"80/sctp"}}`, status: 400, typ: "invalid", location: "body.ports.http"},
		{name: "wrong type", body: `{"appId":"web","ip":10}`, status: 400, typ: "invalid", location: "body.ip", text: "expected string"},
		{name: "item of a batch", body: `[{"appId":"web","ip":"10.0.0.1"},{"appId":"web","ip":"x"}]`, status: 400, typ: "invalid", location: "body[1].ip"},
		{name: "no JSON", body: `{"appId":`, status: 400, typ: "invalid", text: "not JSON"},
		{name: "empty", body: ``, status: 400},
		{name: "empty array", body: `[]`, status: 400, typ: "invalid", text: "at least one"},
		{name: "two ids with one host label", body: `{"appId":"taken","ip":"10.0.0.8","id":"10-0-0-9"}`, status: 409, typ: "conflict", text: "10-0-0-9"},
		{name: "1001 items", body: items(1001), status: 413, typ: "too-large", text: "1000"},
		{name: "2 KiB record", body: `{"appId":"web","ip":"10.0.0.1","meta":{` + meta(2048) + `}}`, status: 413, typ: "too-large", text: "1024"},
		{name: "huge body", body: `{"appId":"` + strings.Repeat("x", 5<<20) + `"}`, status: 413, typ: "too-large"},
		{name: "key reused", body: `{"appId":"other","ip":"10.0.0.9"}`, header: []string{"Idempotency-Key", "k1"}, status: 422, typ: "key-reused"},
		{name: "stale If-Match", body: `{"appId":"taken","ip":"10.0.0.9","weight":3}`, header: []string{"If-Match", "1"}, status: 412, typ: "precondition"},
		{name: "bad If-Match", body: `{"appId":"taken","ip":"10.0.0.9"}`, header: []string{"If-Match", "abc"}, status: 400, typ: "invalid", location: "header.If-Match"},
		{name: "checks", body: `{"appId":"web","ip":"10.0.0.1","checks":[{"tcp":"10.0.0.1:80"}]}`, status: 501, typ: "not-implemented"},
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
