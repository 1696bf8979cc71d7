package check

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/fluid-sd/fluid/plugin/record"
)

// maxRead is how much of an answer is read, in bytes, so that its connection
// ends in order.
const maxRead = 4 << 10

// probe asks an instance how it is, over the network.
func probe(ctx context.Context, s *Spec) (record.Status, string) {
	switch {
	case s.HTTP != "":
		return probeHTTP(ctx, s.HTTP)
	case s.GRPC != "":
		return probeGRPC(ctx, s.GRPC)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.TCP)
	if err != nil {
		return record.Critical, err.Error()
	}
	_ = conn.Close()
	return record.Passing, "accepts connections"
}

// probes have a connection each: an instance that takes no new one is not well.
var httpClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func probeHTTP(ctx context.Context, url string) (record.Status, string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return record.Critical, err.Error()
	}
	req.Header.Set("User-Agent", "fluid-agent/"+record.Version)
	resp, err := httpClient.Do(req)
	if err != nil {
		return record.Critical, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, maxRead)
	switch {
	case resp.StatusCode/100 == 2:
		return record.Passing, resp.Status
	case resp.StatusCode == http.StatusTooManyRequests:
		return record.Warning, resp.Status
	}
	return record.Critical, resp.Status
}

func probeGRPC(ctx context.Context, target string) (record.Status, string) {
	addr, service, _ := strings.Cut(target, "/")
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return record.Critical, err.Error()
	}
	defer func() { _ = conn.Close() }()
	resp, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		return record.Critical, err.Error()
	}
	if resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return record.Critical, fmt.Sprintf("reports %s", resp.GetStatus())
	}
	return record.Passing, "reports SERVING"
}
