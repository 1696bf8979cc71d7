package api

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

func field(name, value, problem, fix string) error {
	return &record.FieldError{Field: name, Value: value, Problem: problem, Fix: fix}
}

func parseIndex(s string) (uint64, error) {
	n, err := strconv.ParseUint(strings.Trim(s, `"`), 10, 64)
	if err != nil {
		return 0, errors.New("is not an index; use the index of the answer to a write, such as 42")
	}
	return n, nil
}

// parseDuration reads a Go duration; an empty string is 0.
func parseDuration(name, s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, field(name, s, "is not a duration", `use a Go duration such as "5s"`)
	}
	return d, nil
}

// expiry turns a duration from now into milliseconds since the Unix epoch.
func expiry(name, s string, now time.Time) (int64, error) {
	d, err := parseDuration(name, s)
	switch {
	case err != nil:
		return 0, err
	case s == "":
		return 0, nil
	case d < time.Second:
		return 0, field(name, s, "is too short", `use 1s or more`)
	}
	return now.Add(d).UnixMilli(), nil
}

// record returns the normalized, valid instance that the target describes. A
// *record.FieldError names the JSON field.
func (t *Target) record(service string, now time.Time) (record.Instance, error) {
	in := record.Instance{
		Service: service, ID: t.ID, Node: t.Node, Host: t.Host, Port: t.Port,
		Tags: slices.Clone(t.Tags), Weight: record.DefaultWeight, Priority: t.Priority, Zone: t.Zone,
	}
	if t.Weight != nil {
		in.Weight = *t.Weight
	}
	if t.IP != "" {
		a, err := parseAddr("ip", t.IP)
		if err != nil {
			return in, err
		}
		in.Addrs = append(in.Addrs, a)
	}
	for i, ip := range t.IPs {
		a, err := parseAddr(fmt.Sprintf("ips[%d]", i), ip)
		if err != nil {
			return in, err
		}
		in.Addrs = append(in.Addrs, a)
	}
	for name, p := range t.Ports {
		in.Ports = append(in.Ports, record.Port{Name: name, Number: p.Number, Proto: p.Proto})
	}
	for k, v := range t.Meta {
		in.Meta = append(in.Meta, record.Pair{Key: k, Value: v})
	}
	var err error
	if in.TTL, err = parseDuration("ttl", t.TTL); err != nil {
		return in, err
	}
	if t.TTL != "" && in.TTL == 0 {
		return in, field("ttl", t.TTL, "is not a usable TTL", "use whole seconds from 1s to 1h")
	}
	if in.Expires, err = expiry("expires", t.Expires, now); err != nil {
		return in, err
	}
	in.Normalize()
	return in, in.Validate()
}

// parseAddr reads an address as a client gave it. The rules for which
// addresses can be answered are those of record.ValidateAddr; checking here
// too lets the error name the JSON field.
func parseAddr(name, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, field(name, s, "is not an address", "use an IPv4 or IPv6 address such as 10.0.0.9")
	}
	return a, record.ValidateAddr(name, a.Unmap())
}

// service returns the record of a configuration.
func (c *ServiceConfig) service(name string) (record.Service, error) {
	out := record.Service{Name: name, Class: record.ClassCritical, AnswerLimit: c.AnswerLimit, GuardOff: c.Guard != nil && !*c.Guard}
	var err error
	if c.Class != "" {
		if out.Class, err = record.ParseClass(c.Class); err != nil {
			return out, err
		}
	}
	if out.TTL, err = parseDuration("ttl", c.TTL); err != nil {
		return out, err
	}
	if out.NegativeTTL, err = parseDuration("negativeTTL", c.NegativeTTL); err != nil {
		return out, err
	}
	if c.ServeStale == "forever" {
		out.ServeStale = -1
	} else if out.ServeStale, err = parseDuration("serveStale", c.ServeStale); err != nil {
		return out, err
	}
	return out, out.Validate()
}

// serviceConfig is the inverse of ServiceConfig.service.
func serviceConfig(s record.Service, index uint64) ServiceConfig {
	guard := !s.GuardOff
	stale := durationString(s.ServeStale)
	if s.ServeStale < 0 {
		stale = "forever"
	}
	return ServiceConfig{
		Class: s.Class.String(), TTL: durationString(s.TTL), NegativeTTL: durationString(s.NegativeTTL),
		ServeStale: stale, AnswerLimit: s.AnswerLimit, Guard: &guard, Index: &index,
	}
}

func durationString(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return d.String()
}

func timeString(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format(time.RFC3339)
}

// instanceOf returns the JSON form of one instance of a view.
func instanceOf(v catalog.Verdict) (Instance, error) {
	rec, err := v.Instance.Record()
	if err != nil {
		return Instance{}, fmt.Errorf("instance %s: %w", v.Instance.ID, err)
	}
	out := Instance{
		ID: rec.ID, Label: v.Instance.Label, Node: rec.Node, IPs: make([]string, len(rec.Addrs)), Host: rec.Host,
		Port: rec.Port, Ports: map[string]PortNumber{}, Tags: notNil(rec.Tags), Meta: map[string]string{},
		Weight: rec.Weight, Priority: rec.Priority, Zone: rec.Zone, TTL: durationString(rec.TTL),
		Status: rec.Status.String(), Tier: v.Instance.Tier.String(), Index: v.Instance.Index,
		ExpiresAt: timeString(rec.Expires), Answered: v.Answered, Overlays: notNil(v.Overlays),
	}
	if v.Instance.Tier == catalog.TierGossip {
		out.Version = fmt.Sprintf("%d.%d", v.Epoch, v.Seq)
	}
	if !v.Answered {
		out.Reason = ruleText(v.Rule)
		if v.Decider != "" {
			out.Reason += " by overlay " + v.Decider
		}
	}
	for i, a := range rec.Addrs {
		out.IPs[i] = a.String()
	}
	for _, p := range rec.Ports {
		out.Ports[p.Name] = PortNumber{p.Number, p.Proto}
	}
	for _, m := range rec.Meta {
		out.Meta[m.Key] = m.Value
	}
	return out, nil
}

// ruleText says for people why an instance is not answered.
func ruleText(r catalog.Rule) string {
	switch r {
	case catalog.RuleCheck:
		return "check failed"
	case catalog.RuleClass:
		return "conflict: the committed class of the service is another"
	case catalog.RuleSuperseded:
		return "conflict: another agent registered it later"
	case catalog.RuleDead:
		return "dead: nothing on its host answers"
	case catalog.RuleUnattended:
		return "unattended: its agent has been gone for long"
	}
	return r.String()
}

// overlayOf returns the JSON form of an overlay.
func overlayOf(o record.Overlay, index uint64) Overlay {
	return Overlay{
		ID: o.ID, Kind: o.Kind.String(), Service: o.Service, Instance: o.Instance, Node: o.Node,
		Weight: o.Weight, Reason: o.Reason, ExpiresAt: timeString(o.Expires), Index: index,
	}
}

func notNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
