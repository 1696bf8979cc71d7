package record

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"
)

// Class says which tier is the source of truth for a service's instances.
type Class uint8

// The classes of a service.
const (
	ClassUnknown   Class = iota // no class recorded
	ClassCritical               // instances exist by Raft commit
	ClassEphemeral              // instances exist by gossip
)

// String returns "critical", "ephemeral" or "unknown".
func (c Class) String() string {
	switch c {
	case ClassCritical:
		return "critical"
	case ClassEphemeral:
		return "ephemeral"
	}
	return "unknown"
}

// ParseClass reads "critical" or "ephemeral".
func ParseClass(s string) (Class, error) {
	switch s {
	case "critical":
		return ClassCritical, nil
	case "ephemeral":
		return ClassEphemeral, nil
	}
	return ClassUnknown, invalid("class", s, "is not a class", "use critical or ephemeral")
}

// Service is what is committed about a service as a whole: its class and the
// settings of its answers. Zero settings mean "as the zone says".
type Service struct {
	Name        string
	Class       Class
	TTL         time.Duration // whole seconds
	NegativeTTL time.Duration // whole seconds
	// ServeStale is how long answers go on without news; 0 as the zone says,
	// negative for ever.
	ServeStale  time.Duration
	AnswerLimit uint16 // instances in one answer
	// GuardOff switches the mass-change guard off for this service.
	GuardOff bool

	unknown string
}

// Validate returns a *FieldError for the first field that is not valid.
func (s *Service) Validate() error {
	if err := ValidateService("service", s.Name); err != nil {
		return err
	}
	if s.Class != ClassCritical && s.Class != ClassEphemeral {
		return invalid("class", s.Class.String(), "is not a class", "use critical or ephemeral")
	}
	for _, f := range []struct {
		field string
		d     time.Duration
	}{{"ttl", s.TTL}, {"negativeTTL", s.NegativeTTL}} {
		if f.d < 0 || f.d > MaxTTL || f.d%time.Second != 0 {
			return invalid(f.field, f.d.String(), "is not a usable TTL", "use whole seconds from 1s to 1h")
		}
	}
	return nil
}

// OverlayKind says what an overlay does.
type OverlayKind uint8

// The kinds of overlay.
const (
	OverlayDrain  OverlayKind = 1 + iota // leave the answers, connections go on
	OverlayDeny                          // leave the answers at once
	OverlayWeight                        // replace the weight
	OverlayAllow                         // end a guard's mark on the target
)

var overlayNames = map[OverlayKind]string{
	OverlayDrain: "drain", OverlayDeny: "deny", OverlayWeight: "weight", OverlayAllow: "allow",
}

// String returns the lower-case name of the kind.
func (k OverlayKind) String() string {
	if n, ok := overlayNames[k]; ok {
		return n
	}
	return fmt.Sprintf("overlay(%d)", uint8(k))
}

// ParseOverlayKind reads the form that String writes.
func ParseOverlayKind(s string) (OverlayKind, error) {
	for k, n := range overlayNames {
		if n == s {
			return k, nil
		}
	}
	return 0, invalid("kind", s, "is not an overlay", "use drain, deny, weight or allow")
}

// Overlay is an operator's committed decision on top of what instances say of
// themselves. It targets an instance (Service and Instance), a service
// (Service) or a node (Node).
type Overlay struct {
	ID       string
	Kind     OverlayKind
	Service  string
	Instance string // canonical instance id
	Node     string
	Weight   uint16 // of OverlayWeight
	Reason   string
	Expires  int64 // milliseconds since the Unix epoch; 0: until lifted

	unknown string
}

// MaxReason bounds the reason of an overlay or a status, in bytes.
const MaxReason = 256

// Validate returns a *FieldError for the first field that is not valid.
func (o *Overlay) Validate() error {
	if _, ok := overlayNames[o.Kind]; !ok {
		return invalid("kind", o.Kind.String(), "is not an overlay", "use drain, deny, weight or allow")
	}
	if err := checkLabel("id", o.ID); err != nil {
		return err
	}
	switch {
	case o.Node != "" && (o.Service != "" || o.Instance != ""):
		return invalid("node", o.Node, "is given beside a service", "target one of service, service and instance, or node")
	case o.Node != "":
		if err := checkLabel("node", o.Node); err != nil {
			return err
		}
	default:
		if err := ValidateService("service", o.Service); err != nil {
			return err
		}
		if o.Instance != "" {
			if _, err := CanonicalID("instance", o.Instance); err != nil {
				return err
			}
		}
	}
	if o.Kind != OverlayWeight && o.Weight != 0 {
		return invalid("weight", fmt.Sprint(o.Weight), "is given with kind "+o.Kind.String(), "leave it out, or use kind weight")
	}
	if len(o.Reason) > MaxReason {
		return tooLarge("reason", len(o.Reason), MaxReason, "bytes")
	}
	return nil
}

// Node is a machine that runs an agent.
type Node struct {
	ID      string // durable random id, in the agent's data directory
	Name    string // a label
	Addrs   []netip.Addr
	Zone    string
	Version string
	// Members are the mesh ids of the DNS servers attached to the agent's socket.
	Members []string
	// Created is when the data directory was made, in milliseconds since the
	// Unix epoch. Of two nodes with one name the older keeps it.
	Created int64
	// HTTP is the base URL of the agent's HTTP interface for other agents. Who
	// reads it decides whether to trust a word of gossip.
	HTTP string

	unknown string
}

// Report is the health of a committed instance as the agent of its node sees
// it. It counts only for the instance as it was committed at Position, and can
// only make its status worse.
type Report struct {
	Service, ID string
	Position    Position
	Status      Status
	Reason      string

	unknown string
}

// Compare orders overlays by id.
func (o *Overlay) Compare(p *Overlay) int { return cmp.Compare(o.ID, p.ID) }
