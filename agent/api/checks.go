package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/agent/check"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Checks watches the health of the instances on this node.
type Checks interface {
	// CanCheck says why this agent cannot check instances on a node: a
	// *record.FieldError, or store.ErrConflict.
	CanCheck(node string) error
	// Watch replaces what is watched of committed instances, of each by the
	// watch in its place; the zero Watch ends it.
	Watch(instances []record.Instance, watches []Watch) error
	// Heartbeat renews the TTL checks of an instance of this agent, and its
	// lifetime if it was registered with one.
	Heartbeat(service, id string) (Vouched, error)
}

// Watch is what is watched of an instance.
type Watch struct {
	Checks []check.Spec `json:"checks"`
	// Lifetime is how long it lives without a heartbeat; 0: for ever.
	Lifetime time.Duration `json:"lifetime,omitempty"`
}

// IsZero reports whether nothing is watched.
func (w Watch) IsZero() bool { return len(w.Checks) == 0 && w.Lifetime == 0 }

// Equal reports whether the same is watched.
func (w Watch) Equal(v Watch) bool {
	return w.Lifetime == v.Lifetime && slices.Equal(w.Checks, v.Checks)
}

// Check is one health check. Exactly one of HTTP, TCP, GRPC and TTL is set.
type Check struct {
	HTTP             string `json:"http,omitempty" doc:"URL that must answer 2xx; 429 is a warning."`
	TCP              string `json:"tcp,omitempty" doc:"HOST:PORT that must accept a connection."`
	GRPC             string `json:"grpc,omitempty" doc:"HOST:PORT[/SERVICE] that must report SERVING (grpc.health.v1)."`
	TTL              string `json:"ttl,omitempty" doc:"Duration within which a heartbeat must come, again and again."`
	Interval         string `json:"interval,omitempty" example:"10s" doc:"Between two probes. Default: 10s."`
	Timeout          string `json:"timeout,omitempty" example:"2s" doc:"Of one probe. Default: 2s."`
	SuccessThreshold int    `json:"successThreshold,omitempty" minimum:"1" maximum:"100" doc:"Probes in a row that make it passing. Default: 1."`
	FailureThreshold int    `json:"failureThreshold,omitempty" minimum:"1" maximum:"100" doc:"Probes in a row that make it critical. Default: 1."`
	DeregisterAfter  string `json:"deregisterAfter,omitempty" doc:"Removed after being critical for this long; 1s or more."`
}

// watch returns what is to be watched of the target, or a *record.FieldError.
func (t *Target) watch() (w Watch, err error) {
	if w.Lifetime, err = parseDuration("expires", t.Expires); err != nil {
		return w, err
	}
	if len(t.Checks) > check.MaxChecks {
		return w, field("checks", "", fmt.Sprintf("are %d", len(t.Checks)), fmt.Sprintf("give at most %d", check.MaxChecks))
	}
	for i := range t.Checks {
		name := fmt.Sprintf("checks[%d]", i)
		s, err := t.Checks[i].spec(name)
		if err != nil {
			return w, err
		}
		w.Checks = append(w.Checks, s)
	}
	return w, nil
}

func (c *Check) spec(name string) (check.Spec, error) {
	s := check.Spec{HTTP: c.HTTP, TCP: c.TCP, GRPC: c.GRPC, Successes: c.SuccessThreshold, Failures: c.FailureThreshold}
	for _, d := range []struct {
		name, text string
		to         *time.Duration
	}{
		{"ttl", c.TTL, &s.TTL},
		{"interval", c.Interval, &s.Interval},
		{"timeout", c.Timeout, &s.Timeout},
		{"deregisterAfter", c.DeregisterAfter, &s.DeregisterAfter},
	} {
		var err error
		if *d.to, err = parseDuration(name+"."+d.name, d.text); err != nil {
			return s, err
		}
	}
	s.Normalize()
	return s, s.Validate(name)
}

func (s *server) checkOps(path string) {
	huma.Register(s.huma, op(http.MethodPut, path+"/heartbeat", "put-heartbeat", "Renew the TTL checks and the lifetime of an instance of this agent",
		servicesTag, http.StatusNotFound), func(_ context.Context, in *struct{ EphemeralPath }) (*vouchedOutput, error) {
		id, err := in.check()
		if err != nil {
			return nil, err
		}
		done, err := s.Checks.Heartbeat(in.Service, id)
		if err != nil {
			return nil, toProblem(err, "")
		}
		return &vouchedOutput{WriteHeaders: writtenAt(s.View.Status().Position), Status: http.StatusOK, Body: done}, nil
	})
}

// watchAll watches what was committed as its registrations ask for.
func (s *server) watchAll(instances []record.Instance, watches []Watch) error {
	if s.Checks == nil {
		return nil
	}
	for i := range watches {
		watches[i].Lifetime = 0 // the leader sees to it
	}
	return s.Checks.Watch(instances, watches)
}
