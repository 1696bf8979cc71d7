package fluid

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// An agent that asks hears of a position when a query sees it, not before, and
// when it is on disk, where there is a snapshot.
func TestMemberTells(t *testing.T) {
	for name, snapshot := range map[string]string{"memory": "", "disk": "snapshot %s"} {
		t.Run(name, func(t *testing.T) {
			o := newOther(t, nil)
			o.commit(instance(t, "checkout 10.0.0.1"))
			path := t.TempDir() + "/last.good"
			if snapshot != "" {
				snapshot = fmt.Sprintf(snapshot, path)
			}
			s := serve(t, corefile(o.options(snapshot+"\n ttl 7"), ""), idleAgent(t))
			eventually(t, "the instance", func() bool { return answers(s, "checkout.fluid.internal.", "10.0.0.1") })
			_, e := held()
			ask := func(at record.Position) (out []mesh.Report) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				return o.Applied(ctx, at, []string{e.head.Member})
			}
			for i := range 4 {
				ip := fmt.Sprintf("10.0.1.%d", i)
				pos := o.commit(instance(t, "now-"+fmt.Sprint(i)+" "+ip))
				got := ask(pos)
				if want := (mesh.Report{ID: e.head.Member, Applied: pos, TTL: 7 * time.Second}); len(got) != 1 || got[0] != want {
					t.Fatalf("got %+v, want %+v", got, want)
				}
				if !answers(s, fmt.Sprintf("now-%d.fluid.internal.", i), ip) {
					t.Fatalf("applied, but not answered: %d", i)
				}
			}
			if snapshot == "" {
				return
			}
			before := ask(position())[0].Applied
			e.mu.Lock()
			e.volatile, e.rewritten = true, time.Now() // as if the disk were full
			e.mu.Unlock()
			pos := o.commit(instance(t, "checkout 10.0.0.2"))
			eventually(t, "the other instance", func() bool { return answers(s, "checkout.fluid.internal.", "10.0.0.1", "10.0.0.2") })
			ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
			defer cancel()
			if got := o.Applied(ctx, pos, []string{e.head.Member}); len(got) != 1 || got[0].Applied != before {
				t.Errorf("not on disk: got %+v, want %v", got, before)
			}
			e.mu.Lock()
			e.rewritten = time.Time{}
			e.mu.Unlock()
			if got := ask(pos); len(got) != 1 || got[0].Applied != pos {
				t.Errorf("on disk again: got %+v", got)
			}
		})
	}
}
