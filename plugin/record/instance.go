package record

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Limits of one instance.
const (
	MaxEncoded   = 1024 // bytes of an encoded record
	MaxAddrs     = 16
	MaxTags      = 32
	MaxPorts     = 16
	MaxMeta      = 64
	MaxMetaKey   = 128
	MaxMetaValue = 512
	MaxTTL       = time.Hour
)

// DefaultWeight is the weight of an instance that was registered without one.
const DefaultWeight = 1

// Status is the health of an instance as its owner reports it.
type Status uint8

// The statuses, from answered to withheld. Passing and Warning instances are
// answered, the others are not.
const (
	Passing Status = iota
	Warning
	Critical
	Draining
	Maintenance
)

var statusNames = [...]string{"passing", "warning", "critical", "draining", "maintenance"}

// String returns the lower-case name of the status.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// Answered reports whether DNS answers hold instances with this status.
func (s Status) Answered() bool { return s == Passing || s == Warning }

// ParseStatus reads the form that String writes.
func ParseStatus(s string) (Status, error) {
	if i := slices.Index(statusNames[:], s); i >= 0 {
		return Status(i), nil
	}
	return 0, invalid("status", s, "is not a status", "use one of "+strings.Join(statusNames[:], ", "))
}

// Proto is the transport protocol of a port.
type Proto uint8

// The transport protocols a port can have.
const (
	TCP Proto = iota
	UDP
)

// String returns "tcp" or "udp".
func (p Proto) String() string {
	if p == UDP {
		return "udp"
	}
	return "tcp"
}

// Port is a named port of an instance.
type Port struct {
	Name   string // RFC 6335 service name, lower case
	Number uint16 // never 0
	Proto  Proto
}

// Pair is one piece of an instance's metadata.
type Pair struct{ Key, Value string }

// Instance is one place where a service is reachable.
type Instance struct {
	Service  string
	ID       string        // canonical, see CanonicalID; unique in the service
	Node     string        // name of the node it runs on; empty for an external instance
	Addrs    []netip.Addr  // sorted, IPv4 first, without duplicates; empty only with Host
	Host     string        // fully qualified, with the final dot; instead of Addrs
	Port     uint16        // 0: none
	Ports    []Port        // sorted by name
	Tags     []string      // sorted labels
	Meta     []Pair        // sorted by key
	Weight   uint16        // share of the answers among equal priorities; 0 only counts if all are 0
	Priority uint16        // lower is used first (RFC 2782)
	Zone     string        // failure domain, a label; empty: unknown
	TTL      time.Duration // whole seconds; 0: the service's or the zone's
	Status   Status
	// Registered is when the explicit registration was accepted, in
	// milliseconds since the Unix epoch; Expires is when it ends, 0: never.
	Registered, Expires int64

	unknown string // fields of a newer version, kept as they came
}

// Label returns the instance's host label, see HostLabel.
func (in *Instance) Label() string { return HostLabel(in.ID) }

// Normalize puts the instance into canonical form: addresses, tags, ports and
// metadata sorted and without duplicates, the host fully qualified, and the id
// derived from address and port if it is empty. It never fails; what it cannot
// repair, Validate reports.
func (in *Instance) Normalize() {
	for i, a := range in.Addrs {
		in.Addrs[i] = a.Unmap()
	}
	slices.SortFunc(in.Addrs, netip.Addr.Compare)
	in.Addrs = slices.Compact(in.Addrs)
	// Tags that are refused keep their places, so that the error names the right one.
	if !slices.ContainsFunc(in.Tags, func(tag string) bool { return !IsLabel(tag) }) {
		slices.Sort(in.Tags)
		in.Tags = slices.Compact(in.Tags)
	}
	slices.SortFunc(in.Ports, func(a, b Port) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(in.Meta, func(a, b Pair) int { return cmp.Compare(a.Key, b.Key) })
	if in.Host != "" {
		in.Host = strings.TrimSuffix(strings.ToLower(in.Host), ".") + "."
	}
	if id, err := CanonicalID("id", in.ID); err == nil {
		in.ID = id
	} else if in.ID == "" && len(in.Addrs) > 0 {
		in.ID = DefaultID(in.Addrs[0], in.Port)
	} else if in.ID == "" && in.Host != "" {
		in.ID, _, _ = strings.Cut(in.Host, ".")
	}
}

// Validate returns a *FieldError for the first field of a normalized instance
// that is not valid, or nil. The error wraps ErrTooLarge where a limit of this
// package is exceeded.
func (in *Instance) Validate() error {
	if err := ValidateService("service", in.Service); err != nil {
		return err
	}
	if err := in.validateTarget(); err != nil {
		return err
	}
	if _, err := CanonicalID("id", in.ID); err != nil {
		return err
	}
	if l := HostLabel(in.ID); !IsLabel(l) {
		return invalid("id", in.ID, "has no DNS label", "give a label of at most 63 bytes as id")
	}
	if in.Node != "" {
		if err := checkLabel("node", in.Node); err != nil {
			return err
		}
	}
	if in.Zone != "" {
		if err := checkLabel("zone", in.Zone); err != nil {
			return err
		}
	}
	if in.TTL < 0 || in.TTL > MaxTTL || in.TTL%time.Second != 0 {
		return invalid("ttl", in.TTL.String(), "is not a usable TTL", "use whole seconds from 1s to 1h")
	}
	if in.Status > Maintenance {
		return invalid("status", in.Status.String(), "is not a status", "use one of "+strings.Join(statusNames[:], ", "))
	}
	if err := in.validateLists(); err != nil {
		return err
	}
	if n := len(in.Append(nil)); n > MaxEncoded {
		return tooLarge("instance", n, MaxEncoded, "bytes encoded")
	}
	return nil
}

func (in *Instance) validateTarget() error {
	switch {
	case in.Host != "" && len(in.Addrs) > 0:
		return invalid("host", in.Host, "is given beside addresses", "give either ip, ips or host")
	case in.Host != "":
		return validateHost("host", in.Host)
	case len(in.Addrs) == 0:
		return invalid("ip", "", "is missing", "give an address in ip or ips, or a name in host")
	case len(in.Addrs) > MaxAddrs:
		return tooLarge("ips", len(in.Addrs), MaxAddrs, "addresses")
	}
	for i, a := range in.Addrs {
		if err := ValidateAddr(fmt.Sprintf("ips[%d]", i), a); err != nil {
			return err
		}
	}
	return nil
}

// ValidateAddr reports why an address cannot be answered to clients, as a
// *FieldError on field, or nil. Loopback addresses are allowed.
func ValidateAddr(field string, a netip.Addr) error {
	const fix = "use a unicast address that clients can reach"
	switch {
	case !a.IsValid():
		return invalid(field, "", "is not an address", "use an IPv4 or IPv6 address")
	case a.Zone() != "":
		return invalid(field, a.String(), "has an interface zone", fix)
	case a.IsUnspecified():
		return invalid(field, a.String(), "is the unspecified address", fix)
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return invalid(field, a.String(), "is a multicast or broadcast address", fix)
	case a.IsLinkLocalUnicast():
		return invalid(field, a.String(), "is a link-local address", fix)
	}
	return nil
}

func (in *Instance) validateLists() error {
	if len(in.Tags) > MaxTags {
		return tooLarge("tags", len(in.Tags), MaxTags, "tags")
	}
	for i, tag := range in.Tags {
		if err := checkLabel(fmt.Sprintf("tags[%d]", i), tag); err != nil {
			return err
		}
	}
	if len(in.Ports) > MaxPorts {
		return tooLarge("ports", len(in.Ports), MaxPorts, "ports")
	}
	for i, p := range in.Ports {
		field := "ports." + p.Name
		if err := validatePortName(field, p.Name); err != nil {
			return err
		}
		if p.Number == 0 || p.Proto > UDP {
			return invalid(field, fmt.Sprint(p.Number), "is not a port", `use 1 to 65535, with "/udp" for UDP`)
		}
		if i > 0 && in.Ports[i-1].Name == p.Name {
			return invalid(field, p.Name, "is given twice", "name each port once")
		}
	}
	return in.validateMeta()
}

func (in *Instance) validateMeta() error {
	if len(in.Meta) > MaxMeta {
		return tooLarge("meta", len(in.Meta), MaxMeta, "pairs")
	}
	for i, m := range in.Meta {
		field := "meta." + m.Key
		switch {
		case m.Key == "" || strings.ContainsFunc(m.Key, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '=' }):
			// The key is the part before the first "=" of a TXT string (RFC 6763 section 6.4).
			return invalid("meta", m.Key, "is not a key", `use printable ASCII without spaces and "="`)
		case i > 0 && in.Meta[i-1].Key == m.Key:
			return invalid(field, m.Key, "is given twice", "name each key once")
		case len(m.Key) > MaxMetaKey:
			return tooLarge(field, len(m.Key), MaxMetaKey, "bytes of key")
		case len(m.Value) > MaxMetaValue:
			return tooLarge(field, len(m.Value), MaxMetaValue, "bytes of value")
		}
	}
	return nil
}

// PortNamed returns the named port, if the instance has it.
func (in *Instance) PortNamed(name string) (Port, bool) {
	i, ok := slices.BinarySearchFunc(in.Ports, name, func(p Port, name string) int { return cmp.Compare(p.Name, name) })
	if !ok {
		return Port{}, false
	}
	return in.Ports[i], true
}

// HasTag reports whether the instance carries the tag.
func (in *Instance) HasTag(tag string) bool {
	_, ok := slices.BinarySearch(in.Tags, tag)
	return ok
}
