package check

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/fluid-sd/fluid/plugin/record"
)

func TestProbe(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/busy":
			w.WriteHeader(http.StatusTooManyRequests)
		case "/ill":
			w.WriteHeader(http.StatusInternalServerError)
		case "/slow":
			<-r.Context().Done()
		}
	}))
	defer web.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rpc, states := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(rpc, states)
	states.SetServingStatus("ill", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	go func() { _ = rpc.Serve(l) }()
	defer rpc.Stop()
	at := strings.TrimPrefix(web.URL, "http://")

	for _, tc := range []struct {
		name   string
		spec   Spec
		want   record.Status
		reason string
	}{
		{"http", Spec{HTTP: web.URL}, record.Passing, "200"},
		{"http busy", Spec{HTTP: web.URL + "/busy"}, record.Warning, "429"},
		{"http ill", Spec{HTTP: web.URL + "/ill"}, record.Critical, "500"},
		{"http slow", Spec{HTTP: web.URL + "/slow"}, record.Critical, "deadline"},
		{"http gone", Spec{HTTP: "http://127.0.0.1:1/"}, record.Critical, "refused"},
		{"tcp", Spec{TCP: at}, record.Passing, ""},
		{"tcp gone", Spec{TCP: "127.0.0.1:1"}, record.Critical, "refused"},
		{"grpc", Spec{GRPC: l.Addr().String()}, record.Passing, "SERVING"},
		{"grpc ill", Spec{GRPC: l.Addr().String() + "/ill"}, record.Critical, "NOT_SERVING"},
		{"grpc unknown", Spec{GRPC: l.Addr().String() + "/other"}, record.Critical, "unknown service"},
		{"grpc gone", Spec{GRPC: "127.0.0.1:1"}, record.Critical, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			timeout := 10 * time.Second
			if strings.HasSuffix(tc.name, "slow") {
				timeout = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			if got, reason := probe(ctx, &tc.spec); got != tc.want || !strings.Contains(reason, tc.reason) {
				t.Errorf("got %s: %s, want %s: %s", got, reason, tc.want, tc.reason)
			}
		})
	}
}
