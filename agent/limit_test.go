package agent_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
)

// Beyond 12 MiB memberlist takes nothing new; what is there can be changed and
// removed, which makes room again.
func TestMemberlistLimit(t *testing.T) {
	cfg := testConfig(t)
	cfg.Gossip.Impl, cfg.Gossip.Bind = "memberlist", "127.0.0.1:0"
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	meta := map[string]string{}
	for i := range 9 {
		meta[fmt.Sprintf("key%d", i)] = strings.Repeat("x", 100)
	}
	batch := func(n int) (apps []api.App) {
		for i := range 500 {
			apps = append(apps, api.App{AppID: fmt.Sprintf("web%d", n), Target: api.Target{IP: fmt.Sprintf("10.%d.%d.%d", n, i/250, i%250+1), Meta: meta}})
		}
		return apps
	}
	own(t, a, "node1")
	last := 0
	var err error
	for ; err == nil && last < 40; last++ {
		_, err = c.Register(t.Context(), batch(last), nil)
	}
	var e *api.Error
	if !errors.As(err, &e) || e.Status != http.StatusInsufficientStorage || !errors.Is(err, store.ErrQuota) || !strings.Contains(e.Detail, "memberlist") {
		t.Fatalf("batch %d: got %v", last, err)
	}
	if full := last * 500 * 1000; full < 11<<20 || full > 15<<20 {
		t.Errorf("refused at about %d bytes", full)
	}
	if status, text := put(t, a, "PUT", "/v1/services/cache/instances/10.0.0.6", `{"ip":"10.0.0.6"}`); status != http.StatusInsufficientStorage {
		t.Errorf("a new ephemeral instance: got %d %s", status, text)
	}
	if status, text := put(t, a, "PUT", ownedPath, `{"ip":"10.0.0.5","weight":7}`); status != http.StatusOK {
		t.Errorf("a change of one: got %d %s", status, text)
	}
	if _, err := c.Register(t.Context(), batch(0)[:2], nil); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if got := metric(t, a, "fluid_gossip_refused_registrations_total"); got != "2" {
		t.Errorf("refused: got %q, want 2", got)
	}
	if _, err := c.Deregister(t.Context(), "web0", nil); err != nil {
		t.Fatal(err)
	}
	register(t, c, "roomy", "10.0.0.7")
}

// metric returns the value of a metric without labels.
func metric(t *testing.T, a *agent.Agent, name string) string {
	t.Helper()
	_, text := put(t, a, http.MethodGet, "/metrics", "")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
