package agent

import (
	"slices"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// tellConflicts says which of the own instances are hidden because their
// service became critical, as can happen on both sides of a split, and which
// are no longer.
func (a *Agent) tellConflicts() {
	var now []record.Key
	a.view.Update(func(*catalog.Catalog) catalog.Changes {
		if !a.origin.owner.Reaped() {
			now = a.origin.owner.Conflicts()
		}
		return catalog.Changes{}
	})
	var before []record.Key
	if p := a.hidden.Swap(&now); p != nil {
		before = *p
	}
	for _, key := range now {
		if _, known := slices.BinarySearch(before, key); !known {
			a.log.Warn("conflict: an instance of this agent is hidden, for its service became critical; register it with POST /v1/apps, or remove it", "key", string(key))
		}
	}
	for _, key := range before {
		if _, still := slices.BinarySearch(now, key); !still {
			a.log.Info("conflict over: an instance of this agent is not hidden any more, or gone", "key", string(key))
		}
	}
}

// conflicts counts the own instances that are hidden by the class.
func (a *Agent) conflicts() int {
	if p := a.hidden.Load(); p != nil {
		return len(*p)
	}
	return 0
}
