package record

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// Limits of names, in bytes.
const (
	MaxLabel    = 63 // a DNS label (RFC 1035 section 2.3.4)
	MaxService  = 62 // a service name: one less, so that "_"+name is a label
	MaxPortName = 15 // a service port name (RFC 6335 section 5.1)
	MaxHost     = 253
)

// reservedServices are labels that mean something else directly under a zone.
var reservedServices = map[string]bool{
	"service": true, "node": true, "addr": true, "query": true, "dns": true, "ns": true,
}

// IsLabel reports whether s is a lower-case LDH label of at most 63 bytes:
// letters, digits and inner hyphens (RFC 1123 section 2.1).
func IsLabel(s string) bool {
	if s == "" || len(s) > MaxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

const labelFix = "use lower-case letters, digits and inner hyphens, at most 63"

func checkLabel(field, s string) error {
	if !IsLabel(s) {
		return invalid(field, s, "is not a label", labelFix)
	}
	return nil
}

// ValidateService reports why name cannot be the name of a service, as a
// *FieldError on field, or nil.
func ValidateService(field, name string) error {
	switch {
	case name == "":
		return invalid(field, "", "is missing", "name the service")
	case len(name) > MaxService:
		return invalid(field, name, "is longer than 62 bytes", "use a shorter name")
	case !IsLabel(name):
		return invalid(field, name, "is not a label", "use lower-case letters, digits and inner hyphens, at most 62")
	case reservedServices[name]:
		return invalid(field, name, "is reserved", "choose a name other than service, node, addr, query, dns and ns")
	}
	return nil
}

// validatePortName checks a named port against RFC 6335 section 5.1.
func validatePortName(field, name string) error {
	const fix = "use 1 to 15 lower-case letters, digits and single inner hyphens, with at least one letter"
	if len(name) > MaxPortName || !IsLabel(name) || strings.Contains(name, "--") ||
		!strings.ContainsFunc(name, func(r rune) bool { return r >= 'a' && r <= 'z' }) {
		return invalid(field, name, "is not a port name", fix)
	}
	return nil
}

// validateHost checks a host name that a CNAME can point to.
func validateHost(field, host string) error {
	const fix = "give a host name such as db.example.org"
	name := strings.TrimSuffix(host, ".")
	if len(name) > MaxHost || !strings.Contains(name, ".") {
		return invalid(field, host, "is not a full host name", fix)
	}
	for label := range strings.SplitSeq(name, ".") {
		if !IsLabel(label) {
			return invalid(field, host, "is not a host name", fix)
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return invalid(field, host, "is an address", "put addresses into ip or ips")
	}
	return nil
}

// splitID splits an instance id of the form ADDRESS or ADDRESS-PORT.
func splitID(id string) (addr netip.Addr, port uint16, ok bool) {
	if a, err := netip.ParseAddr(id); err == nil {
		return a.Unmap(), 0, a.Zone() == ""
	}
	i := strings.LastIndexByte(id, '-')
	if i < 0 {
		return netip.Addr{}, 0, false
	}
	a, err := netip.ParseAddr(id[:i])
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, 0, false
	}
	n, err := strconv.ParseUint(id[i+1:], 10, 16)
	if err != nil || n == 0 || id[i+1] == '0' {
		return netip.Addr{}, 0, false
	}
	return a.Unmap(), uint16(n), true
}

// CanonicalID returns id in canonical form: an address as netip prints it,
// with its port if one is given, or an LDH label as it is. It returns a
// *FieldError on field if id is neither.
func CanonicalID(field, id string) (string, error) {
	if addr, port, ok := splitID(id); ok {
		return DefaultID(addr, port), nil
	}
	if IsLabel(id) {
		return id, nil
	}
	return "", invalid(field, id, "is not an instance id",
		"use an address (10.0.0.9), an address and port (10.0.0.9-8080), or a lower-case label of at most 63 bytes")
}

// DefaultID returns the id of an instance that was registered without one:
// its address, followed by "-" and the port if the port is not 0.
func DefaultID(addr netip.Addr, port uint16) string {
	if port == 0 {
		return addr.String()
	}
	return addr.String() + "-" + strconv.FormatUint(uint64(port), 10)
}

// HostLabel returns the DNS label of the instance with the given canonical id:
// the id itself if it is a label, an IPv4 address with dashes for dots, an
// IPv6 address as 32 hex digits, each with "-PORT" if the id has a port.
// It returns "" for an id that CanonicalID refuses.
func HostLabel(id string) string {
	if IsLabel(id) {
		return id
	}
	addr, port, ok := splitID(id)
	if !ok {
		return ""
	}
	var label string
	if addr.Is4() {
		label = strings.ReplaceAll(addr.String(), ".", "-")
	} else {
		b := addr.As16()
		label = hex.EncodeToString(b[:])
	}
	if port == 0 {
		return label
	}
	return label + "-" + strconv.FormatUint(uint64(port), 10)
}
