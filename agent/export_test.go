package agent

import (
	"context"
	"time"

	"github.com/fluid-sd/fluid/agent/check"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Checked does what follows when a check found another status.
func (a *Agent) Checked(service, id string, status record.Status) {
	a.checked(check.Key{Service: service, ID: id}, status, "found")
}

// RemoveOnce does what follows when an instance was critical for too long.
func (a *Agent) RemoveOnce(ctx context.Context, service, id string) error {
	return a.removeOnce(ctx, check.Key{Service: service, ID: id})
}

// TendChecks does what is done each second.
func (a *Agent) TendChecks(now time.Time) { a.tendChecks(now) }
