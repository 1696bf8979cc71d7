package api_test

import (
	"context"
	"encoding/json"
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
		Local: func(context.Context, record.Position) api.Applied { return api.Applied{} },
		News:  func(string) ([]string, string, bool, <-chan struct{}) { return nil, "test-1", true, nil },
		Zones: func() []string { return []string{"fluid.internal."} },
		Members: func() []api.Member {
			return []api.Member{{Role: "dns", ID: "a"}, {Role: "agent", ID: "b"}, {Role: "dns", ID: "c"}}
		},
		State: s.State, Metrics: reg, Gatherer: reg, Log: log, Now: time.Now, Version: "test",
		Raft: func() api.Raft {
			return api.Raft{State: s.Status().State, Servers: []api.RaftServer{{ID: s.ServerID(), Name: "node1", Suffrage: "voter"}}}
		},
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
