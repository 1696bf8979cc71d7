package mesh_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fluid-sd/fluid/plugin/mesh"
)

// memberlist does not wait for its probes at Shutdown; they end by themselves.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).triggerFunc"))
}

type hubWorld struct{ hub mesh.Hub }

func (w *hubWorld) configure(_ *testing.T, cfg *mesh.Config) {
	cfg.Impl, cfg.Hub = mesh.InMemory, &w.hub
}
func (w *hubWorld) cut(a, b []string) { w.hub.Cut(a, b) }
func (w *hubWorld) heal()             { w.hub.Heal() }
func (w *hubWorld) within() (news, death time.Duration) {
	return 10 * time.Millisecond, 10 * time.Millisecond
}

func TestInMemory(t *testing.T) {
	suite(t,
		func(t *testing.T, f func(*testing.T)) { f(t) },
		func(*testing.T) world { return &hubWorld{} })
}
