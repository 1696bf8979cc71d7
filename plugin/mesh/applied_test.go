package mesh_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// testApplied has an agent ask two DNS members and another agent how far they
// are, while they get there.
func testApplied(t *testing.T, w world) {
	a := start(t, w, "a", mesh.RoleAgent, nil)
	b := start(t, w, "b", mesh.RoleAgent, nil, a)
	c := start(t, w, "c", mesh.RoleDNS, nil, a)
	d := start(t, w, "d", mesh.RoleDNS, nil, a)
	const news = 10 * time.Second
	eventually(t, news, "everybody is there", func() bool { return len(a.Members()) == 4 && len(c.Members()) == 4 })
	at := func(i uint64) record.Position { return record.Position{Generation: 2, Index: i} }
	ask := func(limit time.Duration, i uint64, ids ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		var out []string
		for _, r := range a.Applied(ctx, at(i), ids) {
			out = append(out, r.ID+"@"+r.Applied.String()+"/"+r.TTL.String())
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	if got := ask(300*time.Millisecond, 1, "c", "d"); got != "" {
		t.Errorf("before anybody has a report: got %q", got)
	}
	b.Report([]mesh.Report{{ID: "e", Applied: at(7)}, {ID: "f", Applied: at(8), TTL: 2 * time.Second}})
	c.Report([]mesh.Report{{ID: "c", Applied: at(7), TTL: 5 * time.Second}})
	d.Report([]mesh.Report{{ID: "d", Applied: at(6)}})
	if got, want := ask(news, 7, "b", "c"), "c@2:7/5s e@2:7/0s f@2:8/2s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := ask(300*time.Millisecond, 7, "c", "d"), "c@2:7/5s d@2:6/0s"; got != want {
		t.Errorf("one lags: got %q, want %q", got, want)
	}
	done := make(chan string)
	began := time.Now()
	go func() { done <- ask(news, 9, "b", "c", "d") }()
	select {
	case got := <-done:
		t.Errorf("nobody is there yet: got %q", got)
	case <-time.After(200 * time.Millisecond):
	}
	c.Report([]mesh.Report{{ID: "c", Applied: at(9)}})
	d.Report([]mesh.Report{{ID: "d", Applied: at(10)}})
	b.Report(nil) // not known for now: no answer
	b.Report([]mesh.Report{})
	if got, want := <-done, "c@2:9/0s d@2:10/0s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, direct := w.(*hubWorld) // never asks again, and is tested in real time
	if took := time.Since(began); !direct && took > 400*time.Millisecond {
		t.Errorf("the news took %v, as long as asking again", took)
	}
}
