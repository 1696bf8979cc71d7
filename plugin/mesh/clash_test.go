package mesh_test

import (
	"slices"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// TestClassClash cuts a mesh in two. One half hears that the cluster made a
// service critical; in the other half an agent registers an ephemeral instance
// of it, which nothing there speaks against. Within a second of the halves'
// hearing of each other there is one view, the committed one, and nothing of the
// registration is lost: it shows again when the service is critical no more.
func TestClassClash(t *testing.T) {
	for _, split := range []time.Duration{2 * time.Second, 20 * time.Second, 5 * time.Minute} {
		t.Run(split.String(), func(t *testing.T) {
			if testing.Short() && split > time.Minute {
				t.Skip("probes for minutes")
			}
			inBubble(t, func(t *testing.T) { clash(t, split) })
		})
	}
}

func clash(t *testing.T, split time.Duration) {
	w, nodes := crowd(t, mesh.CRDT, 8) // of each half, the first is an agent
	var halves [2][]string
	for i, n := range nodes {
		halves[i%2] = append(halves[i%2], n.id)
	}
	nodes[0].commitState(t, pos(0), pos(1), committed(1, "other", "x"))
	wantAnswers(t, w, "other", []string{"x"}, nodes...)

	w.cut(halves[0], halves[1])
	<-time.After(split / 2)
	class := record.Service{Name: "db", Class: record.ClassCritical}
	nodes[0].commitState(t, pos(1), pos(2), record.Entry{Key: record.ServiceKey("db"), Value: string(class.Append(nil)), Index: 2}, committed(2, "db", "committed"))
	nodes[1].register(t, "db", "ephemeral")
	<-time.After(split / 2)
	for i, n := range nodes {
		if want := []string{[]string{"committed", "ephemeral"}[i%2]}; !slices.Equal(n.answers("db"), want) {
			t.Errorf("%s in the split answers %v, want %v", n.id, n.answers("db"), want)
		}
	}

	w.heal()
	healed := time.Now()
	eventually(t, 30*time.Second, "the halves hear of each other", func() bool {
		return slices.ContainsFunc(halves[1], func(id string) bool { return stateOf(nodes[0], id) == mesh.Alive })
	})
	heard := time.Now()
	eventually(t, time.Second, "one view", func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) bool { return !slices.Equal(n.answers("db"), []string{"committed"}) })
	})
	t.Logf("the halves heard of each other %v after the heal, one view %v later", heard.Sub(healed), time.Since(heard))

	for _, n := range nodes {
		n.Update(func(c *catalog.Catalog) catalog.Changes {
			v := c.Verdicts("db")
			if i := slices.IndexFunc(v, func(v catalog.Verdict) bool { return v.Instance.ID == "ephemeral" }); i >= 0 && v[i].Rule != catalog.RuleClass {
				t.Errorf("%s says that the registration is %v", n.id, v[i].Rule)
			}
			return catalog.Changes{}
		})
	}
	<-time.After(30 * time.Second) // long enough for an owner that gives way, which this is not
	nodes[0].commitState(t, pos(2), pos(3),
		record.Entry{Key: record.ServiceKey("db"), Index: 3, Deleted: true},
		record.Entry{Key: record.InstanceKey("db", "committed"), Index: 3, Deleted: true})
	wantAnswers(t, w, "db", []string{"ephemeral"}, nodes...)
}
