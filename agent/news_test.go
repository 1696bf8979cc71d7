package agent_test

import (
	"context"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
)

// Who watches an agent hears of ephemeral instances.
func TestWatchGossip(t *testing.T) {
	a := start(t, testConfig(t))
	c := client(t, a, "")
	leading(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var seen api.Event
	done := make(chan error, 1)
	go func() {
		done <- c.Watch(ctx, "", func(ev api.Event) error {
			if seen = ev; ev.Service == "cache" {
				cancel()
			}
			return nil
		})
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		weight := []string{`{"ip":"10.0.0.5"}`, `{"ip":"10.0.0.5","weight":2}`}[i%2]
		put(t, a, "PUT", "/v1/services/cache/instances/10.0.0.5", weight)
		select {
		case <-done:
			if seen.Kind != "service" || seen.Service != "cache" || seen.Tier != "gossip" {
				t.Errorf("got %+v", seen)
			}
			return
		case <-tick.C:
		}
	}
}
