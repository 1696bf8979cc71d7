package mesh

import (
	"testing"

	"github.com/fluid-sd/fluid/plugin/record"
)

// TestSurveyOpen: a survey is open until each member has answered well enough,
// whatever the others say meanwhile: a DNS member that restarts goes back.
func TestSurveyOpen(t *testing.T) {
	at := func(i uint64) record.Position { return record.Position{Generation: 1, Index: i} }
	e := newEngine("a", "", 1)
	s := e.beginSurvey(at(5), []string{"a", "b", "c"})
	for _, step := range []struct {
		from string
		i    uint64
		open bool
	}{{"b", 5, true}, {"b", 3, true}, {"b", 6, true}, {"x", 9, true}, {"c", 4, true}, {"c", 5, false}, {"b", 2, true}, {"b", 5, false}} {
		if err := e.onReports(step.from, appendReports(nil, []Report{{ID: "d", Applied: at(step.i)}})); err != nil {
			t.Fatal(err)
		}
		if got := s.open(); got != step.open {
			t.Errorf("after %s at %d: open %v", step.from, step.i, got)
		}
	}
}
