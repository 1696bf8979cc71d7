package api_test

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
)

func TestClient(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.Token = "s3cret" })
	ctx := t.Context()
	c, err := api.NewClient(b.url, "s3cret", b.http)
	if err != nil {
		t.Fatal(err)
	}
	one, err := c.Register(ctx, []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.1"}}}, nil)
	if err != nil || len(one) != 1 || one[0].ID != "10.0.0.1" {
		t.Fatalf("got %+v, %v", one, err)
	}
	two, err := c.Register(ctx, []api.App{
		{AppID: "api", Target: api.Target{IP: "10.0.0.1", Ports: map[string]api.PortNumber{"http": {Number: 80}}}},
		{AppID: "db", Target: api.Target{Host: "db.example.org"}},
	}, nil)
	if err != nil || len(two) != 2 {
		t.Fatalf("got %+v, %v", two, err)
	}
	if list, err := c.Services(ctx, api.Filter{}); err != nil || len(list) != 3 {
		t.Errorf("services: got %+v, %v", list, err)
	}
	if s, err := c.Service(ctx, "api", api.Filter{}); err != nil || len(s.Instances) != 1 || s.Instances[0].Ports["http"].Number != 80 {
		t.Errorf("service: got %+v, %v", s, err)
	}
	placed, err := c.CreateOverlay(ctx, api.Overlay{Kind: "weight", Service: "web", Weight: 9}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := c.Overlays(ctx); err != nil || len(list) != 1 || list[0].Weight != 9 {
		t.Errorf("overlays: got %+v, %v", list, err)
	}
	if _, err := c.DeleteOverlay(ctx, placed.ID, nil); err != nil {
		t.Error(err)
	}
	if _, err := c.DeregisterInstance(ctx, "web", "10.0.0.1", nil); err != nil {
		t.Error(err)
	}
	if _, err := c.Deregister(ctx, "db", nil); err != nil {
		t.Error(err)
	}
}

// Every sentinel that the server maps to a problem comes back as itself.
func TestClientErrors(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.Token = "s3cret" })
	ctx := t.Context()
	good, err := api.NewClient(b.url, "s3cret", b.http)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := api.NewClient(b.url, "guess", b.http)
	if err != nil {
		t.Fatal(err)
	}
	web := []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.1"}}}
	if _, err := good.Register(ctx, web, &api.WriteOptions{IdempotencyKey: "k"}); err != nil {
		t.Fatal(err)
	}
	never := uint64(0)
	for _, tc := range []struct {
		name string
		call func() error
		want error
	}{
		{"invalid", func() error {
			_, err := good.Register(ctx, []api.App{{AppID: "Web"}}, nil)
			return err
		}, api.ErrInvalid},
		{"unauthorized", func() error { _, err := bad.Services(ctx, api.Filter{}); return err }, api.ErrUnauthorized},
		{"not found", func() error { _, err := good.Service(ctx, "nosuch", api.Filter{}); return err }, store.ErrNotFound},
		{"conflict", func() error {
			_, err := good.Register(ctx, []api.App{{AppID: "web", Target: api.Target{ID: "10-0-0-1", IP: "10.0.0.1"}}}, nil)
			return err
		}, store.ErrConflict},
		{"precondition", func() error { _, err := good.Register(ctx, web, &api.WriteOptions{IfMatch: &never}); return err }, store.ErrPrecondition},
		{"key reused", func() error {
			_, err := good.Deregister(ctx, "web", &api.WriteOptions{IdempotencyKey: "k"})
			return err
		}, store.ErrKeyReused},
		{"too large", func() error { _, err := good.Register(ctx, make([]api.App, 1001), nil); return err }, store.ErrTooLarge},
		{"unavailable", func() error {
			if err := b.store.Close(); err != nil {
				t.Fatal(err)
			}
			_, err := good.Deregister(ctx, "web", nil)
			return err
		}, store.ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.call()
			var e *api.Error
			if !errors.Is(err, tc.want) || !errors.As(err, &e) || e.Error() == "" {
				t.Errorf("got %#v, want %v", err, tc.want)
			}
		})
	}
}

func TestClientOverUnixSocket(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.Token = "s3cret" }) // not asked for here
	dir, err := os.MkdirTemp("", "fluid")                        // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", filepath.Join(dir, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: api.WithPrincipal(b.handler, "admin.sock")}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	c, err := api.NewClient("unix:"+filepath.Join(dir, "admin.sock"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.1"}}}, nil); err != nil {
		t.Error(err)
	}
}

func TestNewClientRefuses(t *testing.T) {
	for _, addr := range []string{"", "127.0.0.1:18080", "ftp://x", "http://"} {
		if _, err := api.NewClient(addr, "", nil); err == nil {
			t.Errorf("%q: no error", addr)
		}
	}
}
