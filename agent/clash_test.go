package agent_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/fluid-sd/fluid/agent/api"
)

// A service becomes critical where nobody knows that an agent, which is out of
// the mesh, has an ephemeral instance of it. The committed one is answered, the
// other is kept and explained, and is back when the service is not critical.
func TestClassConflict(t *testing.T) {
	_, a2, c1, c2 := meshed(t)
	if err := c2.LeaveMesh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, text := put(t, a2, "PUT", "/v1/services/db/instances/10.0.0.5", `{"ip":"10.0.0.5"}`); status != http.StatusCreated {
		t.Fatal(text)
	}
	register(t, c1, "db", "10.0.0.9")
	list, err := c1.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.Name == "node1" {
			if _, err := c2.JoinMesh(t.Context(), []string{m.Addr}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []*api.Client{c1, c2} {
		eventually(t, "the committed instance answered, the other explained", func() bool {
			s, err := c.Service(t.Context(), "db", api.Filter{})
			if err != nil || len(s.Instances) != 2 || s.Class != "critical" {
				return false
			}
			i := slices.IndexFunc(s.Instances, func(in api.Instance) bool { return in.ID == "10.0.0.5" })
			return !s.Instances[i].Answered && s.Instances[1-i].Answered && s.Instances[i].Tier == "gossip" && s.Instances[i].Reason != ""
		})
	}
	eventually(t, "the conflict counted by its owner", func() bool { return metric(t, a2, "fluid_class_conflicts") == "1" })
	if status, text := put(t, a2, "PUT", "/v1/services/db/instances/10.0.0.6", `{"ip":"10.0.0.6"}`); status != http.StatusConflict {
		t.Errorf("another one: %d %s", status, text)
	}
	if _, err := c1.Deregister(t.Context(), "db", nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*api.Client{c1, c2} {
		eventually(t, "the ephemeral instance", func() bool { return slices.Equal(answered(t, c, "db"), []string{"10.0.0.5"}) })
	}
	eventually(t, "the end of the conflict", func() bool { return metric(t, a2, "fluid_class_conflicts") == "0" })
}
