package agent

import (
	"testing"

	"github.com/fluid-sd/fluid/plugin/record"
)

func TestOutdated(t *testing.T) {
	made := record.Position{Generation: 2, Index: 7}
	for name, tc := range map[string]struct {
		now   record.Position
		at    uint64
		there bool
		want  bool
	}{
		"as it was":                 {record.Position{Generation: 2, Index: 9}, 7, true, false},
		"gone":                      {record.Position{Generation: 2, Index: 9}, 0, false, true},
		"committed anew":            {record.Position{Generation: 2, Index: 9}, 8, true, true},
		"restored from a snapshot":  {record.Position{Generation: 3, Index: 9}, 7, true, true},
		"not replayed up to it yet": {record.Position{Generation: 2, Index: 6}, 0, false, false},
		"nothing replayed yet":      {record.Position{}, 0, false, false},
		"an older state of it":      {record.Position{Generation: 2, Index: 6}, 5, true, false},
	} {
		if got := outdated(made, tc.now, tc.at, tc.there); got != tc.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
