package agent_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent/api"
)

// Status and weight are changed at the agent that vouches for the instance, or
// is on its node, whoever is asked.
func TestEditElsewhere(t *testing.T) {
	a1, a2, c1, c2 := meshed(t)
	own(t, a2, "node2", c1)
	if _, err := c1.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.1", Node: "node2"}}}, nil); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, path, body string
		done             func(c *api.Client) bool
	}{
		{"weight", ownedPath + "/weight", `{"weight":7}`, func(c *api.Client) bool { return instance(t, c, "cache", "10.0.0.5").Weight == 7 }},
		{"status", ownedPath + "/status", `{"status":"draining"}`, func(c *api.Client) bool { return owner(t, c) == "" }},
		{"status back", ownedPath + "/status", `{"status":"passing"}`, func(c *api.Client) bool { return owner(t, c) == "node2" }},
		{"report", "/v1/services/web/instances/10.0.0.1/status", `{"status":"critical"}`, func(c *api.Client) bool { return !instance(t, c, "web", "10.0.0.1").Answered }},
	} {
		status, text := put(t, a1, "PUT", tc.path, tc.body)
		if status != http.StatusOK || !strings.Contains(text, `"owner":"node2"`) {
			t.Fatalf("%s: got %d %s", tc.name, status, text)
		}
		eventually(t, tc.name+" at the owner", func() bool { return tc.done(c2) })
		eventually(t, tc.name+" where it was asked for", func() bool { return tc.done(c1) })
	}
	if status, text := put(t, a1, "PUT", "/v1/services/cache/instances/10.0.0.9/weight", `{"weight":7}`); status != http.StatusNotFound {
		t.Errorf("of nobody: %d %s", status, text)
	}
	stop(t, a2)
	if status, text := put(t, a1, "PUT", ownedPath+"/weight", `{"weight":8}`); status != http.StatusServiceUnavailable || !strings.Contains(text, "belongs to node2") {
		t.Errorf("with its agent gone: %d %s", status, text)
	}
}
