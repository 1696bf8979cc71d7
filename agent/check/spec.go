package check

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Bounds and defaults of a Spec.
const (
	DefaultInterval    = 10 * time.Second
	DefaultTimeout     = 2 * time.Second
	minInterval        = 50 * time.Millisecond
	maxInterval        = 24 * time.Hour
	minDeregisterAfter = time.Second
	maxThreshold       = 100
)

// MaxChecks is how many checks one instance can have.
const MaxChecks = 16

// Spec is one check. Exactly one of HTTP, TCP, GRPC and TTL is set.
type Spec struct {
	HTTP string `json:"http,omitempty"` // URL; 2xx passes, 429 is a warning
	TCP  string `json:"tcp,omitempty"`  // HOST:PORT that accepts a connection
	GRPC string `json:"grpc,omitempty"` // HOST:PORT[/SERVICE] that reports SERVING
	// TTL is how long after a heartbeat the next one must come.
	TTL time.Duration `json:"ttl,omitempty"`

	Interval time.Duration `json:"interval,omitempty"` // from the start of one probe to the next
	Timeout  time.Duration `json:"timeout,omitempty"`  // of one probe
	// Successes and Failures are how many probes in a row change the status.
	Successes int `json:"successes,omitempty"`
	Failures  int `json:"failures,omitempty"`
	// DeregisterAfter is how long an instance may be critical before it is
	// removed; 0: for ever.
	DeregisterAfter time.Duration `json:"deregisterAfter,omitempty"`
}

// Normalize fills in the defaults.
func (s *Spec) Normalize() {
	if s.TTL == 0 {
		if s.Interval == 0 {
			s.Interval = DefaultInterval
		}
		if s.Timeout == 0 {
			s.Timeout = min(DefaultTimeout, s.Interval)
		}
	}
	s.Successes, s.Failures = max(s.Successes, 1), max(s.Failures, 1)
}

// Validate returns a *record.FieldError, with the field's name below field, for
// the first thing that is wrong with a normalized spec.
func (s *Spec) Validate(field string) error {
	bad := func(name, value, problem, fix string) error {
		return &record.FieldError{Field: strings.TrimSuffix(field+"."+name, "."), Value: value, Problem: problem, Fix: fix}
	}
	kinds := 0
	for _, set := range []bool{s.HTTP != "", s.TCP != "", s.GRPC != "", s.TTL != 0} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return bad("", "", fmt.Sprintf("has %d of http, tcp, grpc and ttl", kinds), "give exactly one")
	}
	if s.HTTP != "" {
		if u, err := url.Parse(s.HTTP); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return bad("http", s.HTTP, "is not a URL", "use one such as http://127.0.0.1:8080/health")
		}
	}
	grpc, _, _ := strings.Cut(s.GRPC, "/")
	for name, addr := range map[string]string{"tcp": s.TCP, "grpc": grpc} {
		if addr == "" && (name == "tcp" || s.GRPC == "") {
			continue
		}
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			return bad(name, addr, "is not an address", "use HOST:PORT, such as 127.0.0.1:8080")
		}
	}
	for _, d := range []struct {
		name        string
		value       time.Duration
		least, most time.Duration
		set         bool
	}{
		{"ttl", s.TTL, minInterval, maxInterval, s.TTL != 0},
		{"interval", s.Interval, minInterval, maxInterval, s.TTL == 0},
		{"timeout", s.Timeout, time.Millisecond, s.Interval, s.TTL == 0},
		{"deregisterAfter", s.DeregisterAfter, minDeregisterAfter, 365 * 24 * time.Hour, s.DeregisterAfter != 0},
	} {
		if d.set && (d.value < d.least || d.value > d.most) {
			return bad(d.name, d.value.String(), "is out of range", fmt.Sprintf("use %s to %s", d.least, d.most))
		}
	}
	if s.Successes > maxThreshold || s.Failures > maxThreshold {
		return bad("", "", "asks for too many probes in a row", fmt.Sprintf("use at most %d", maxThreshold))
	}
	return nil
}

// Initial returns the status of an instance that was just registered with these
// checks: what nobody has probed yet is not answered; a registration counts as
// the first heartbeat.
func Initial(specs []Spec) record.Status {
	for i := range specs {
		if specs[i].TTL == 0 {
			return record.Critical
		}
	}
	return record.Passing
}
