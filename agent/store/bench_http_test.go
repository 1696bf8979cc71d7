package store_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// BenchmarkHTTP compares registrations through the HTTP interface of an agent
// that leads three, as in BenchmarkCluster, with the same interface over a
// store that commits in memory. Both write an audit log. The clients run in the
// same process.
//
//	go test -run - -bench HTTP -benchtime 1x ./agent/store
func BenchmarkHTTP(b *testing.B) {
	memory, cluster := store.NewMemory(b), store.ThreeStores(b)
	store.CompareWrites(b, []string{"memory", "raft"}, []func(context.Context, uint64) error{
		poster(b, memory, settled{}, memory.State), poster(b, cluster, cluster, cluster.State),
	})
}

// poster serves the HTTP interface over a store, and returns what registers
// through it.
func poster(b *testing.B, w api.Writer, c api.Cluster, state func() store.State) func(context.Context, uint64) error {
	b.Helper()
	reg := prometheus.NewRegistry()
	srv := httptest.NewServer(api.New(api.Config{
		Writer: w, Cluster: c, View: committed(state), State: state,
		Members: func() []api.Member { return nil }, Zones: func() []string { return nil },
		Ready:   func() ([]string, map[string]string) { return nil, nil },
		Metrics: reg, Gatherer: reg, Log: slog.New(slog.DiscardHandler), Now: time.Now, Version: "bench",
	}))
	b.Cleanup(srv.Close)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	b.Cleanup(client.CloseIdleConnections)
	return func(ctx context.Context, n uint64) error {
		in := store.Payload(n)
		body := fmt.Sprintf(`{"appId":%q,"id":%q,"ip":%q,"port":%d}`, in.Service, in.ID, in.Addrs[0], in.Port)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/v1/apps", strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode/100 != 2 {
			err = fmt.Errorf("%s: %s", resp.Status, text)
		}
		return err
	}
}

// settled is a cluster that is asked for nothing but whether a write is applied.
type settled struct{ api.Cluster }

func (settled) WaitApplied(context.Context, record.Position) error { return nil }

// committed is a view of nothing but the committed state, which is all that
// registering asks for.
type committed func() store.State

func (v committed) Status() api.ViewStatus {
	return api.ViewStatus{Position: v().Position(), Synced: true}
}

func (committed) Names(string, int) []string { return nil }

func (committed) Service(string) (*catalog.Service, []catalog.Verdict, bool) { return nil, nil, false }
