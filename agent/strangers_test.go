package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Of many agents a round asks a few, others each time, and does not wait for
// those that are gone while there is anybody else.
func TestFollowStrangers(t *testing.T) {
	nodes := func(states map[string]mesh.State, kinds ...string) (out []record.Node) {
		for _, kind := range kinds {
			for i := range 20 {
				id := fmt.Sprintf("%s%d", kind, i)
				out = append(out, record.Node{ID: id, HTTP: "http://" + id})
				if s, ok := map[string]mesh.State{"alive": mesh.Alive, "suspect": mesh.Suspect, "dead": mesh.Dead, "left": mesh.Left}[kind]; ok {
					states[id] = s
				}
			}
		}
		return out
	}
	for _, tc := range []struct {
		there []string
		want  string // whom all that are asked are one of
	}{
		{[]string{"dead", "alive", "left", "unknown", "suspect"}, "alive"},
		{[]string{"dead", "left", "suspect"}, "suspect"},
		{[]string{"dead", "left", "unknown"}, "unknown"},
		{[]string{"dead", "left"}, "dead"},
		{[]string{"left"}, ""},
	} {
		asked := map[string]bool{}
		for range 50 {
			states := map[string]mesh.State{}
			out := pickStrangers(nodes(states, tc.there...), states)
			if len(out) > maxStrangers || (len(out) == 0) != (tc.want == "") {
				t.Fatalf("%v: asked %v", tc.there, out)
			}
			if i := slices.IndexFunc(out, func(at string) bool { return !strings.HasPrefix(at, "http://"+tc.want) }); i >= 0 {
				t.Errorf("%v: asked %s", tc.there, out[i])
			}
			for _, at := range out {
				asked[at] = true
			}
		}
		if tc.want != "" && len(asked) <= 2*maxStrangers {
			t.Errorf("%v: the same %d in all of 50 rounds", tc.there, len(asked))
		}
	}
}
