package answer

import (
	"strconv"
	"strings"

	"github.com/fluid-sd/fluid/plugin/record"
)

// form says what a name under a zone means.
type form uint8

const (
	formNone     form = iota // nothing: NXDOMAIN
	formEmpty                // exists, but only because of names below it
	formApex                 // the zone itself
	formService              // SERVICE or SERVICE.service
	formTagged               // TAG....SERVICE.service
	formInstance             // LABEL.SERVICE
	formSRV                  // _SERVICE._tcp or _SERVICE._tcp.service
	formListed               // LABEL._SERVICE._tcp: an instance as DNS-SD lists it
	formPort                 // _PORT._PROTO.SERVICE
	formScheme               // _NUMBER._SCHEME.SERVICE
	formPin                  // ZONE.pin._zone.SERVICE
	formPrefer               // ZONE.prefer._zone.SERVICE
	formNode                 // NODE.node
	formBrowse               // _services._dns-sd._udp
	// Names that exist if anything of their kind does.
	formAnyService // "service", "_tcp", ...
	formAnyNode    // "node"
	formAnyScheme  // _SCHEME.SERVICE: exists if a port below it does
)

// name is a relative name, taken apart.
type name struct {
	form    form
	service string
	label   string // instance, node, failure domain, port name or scheme
	proto   record.Proto
	number  uint16   // of formScheme
	tags    []string // of formTagged
}

// maxDepth bounds the labels of a name that can mean something: a service
// with every tag it may have.
const maxDepth = record.MaxTags + 2

// parse takes a relative name apart. It looks at the text only; whether the
// service, the node or the instance exists is up to the caller.
func parse(rel string) name {
	if rel == "" {
		return name{form: formApex}
	}
	var buf [8]string
	labels, ok := split(buf[:0], rel)
	if !ok {
		return name{}
	}
	switch labels[0] {
	case "service":
		return parseService(labels[1:])
	case "node":
		return parseNode(labels[1:])
	case "_tcp":
		n := parseTCP(labels[1:])
		if n.form == formSRV && len(labels) == 3 {
			n.form, n.label = formListed, labels[2]
		} else if len(labels) > 2 {
			return name{}
		}
		return n
	case "_udp":
		return parseBrowse(labels[1:])
	}
	return parseBelow(labels[0], labels[1:])
}

// split appends the labels of a name from right to left. It fails for names
// with more labels than any name under a zone has.
func split(labels []string, rel string) ([]string, bool) {
	for {
		i := strings.LastIndexByte(rel, '.')
		labels = append(labels, rel[i+1:])
		if i < 0 {
			return labels, true
		}
		if len(labels) == maxDepth {
			return nil, false
		}
		rel = rel[:i]
	}
}

func parseService(labels []string) name {
	switch {
	case len(labels) == 0:
		return name{form: formAnyService}
	case labels[0] == "_tcp":
		if len(labels) > 2 {
			return name{}
		}
		return parseTCP(labels[1:])
	case len(labels) == 1:
		return name{form: formService, service: labels[0]}
	}
	n := name{form: formTagged, service: labels[0]}
	for _, tag := range labels[1:] {
		if !record.IsLabel(tag) {
			return name{}
		}
		n.tags = append(n.tags, tag)
	}
	return n
}

func parseNode(labels []string) name {
	switch len(labels) {
	case 0:
		return name{form: formAnyNode}
	case 1:
		return name{form: formNode, label: labels[0]}
	}
	return name{}
}

func parseTCP(labels []string) name {
	if len(labels) == 0 {
		return name{form: formAnyService}
	}
	service, ok := underscored(labels[0])
	if !ok {
		return name{}
	}
	return name{form: formSRV, service: service}
}

func parseBrowse(labels []string) name {
	want := [...]string{"_dns-sd", "_services"}
	if len(labels) > len(want) {
		return name{}
	}
	for i, l := range labels {
		if l != want[i] {
			return name{}
		}
	}
	if len(labels) == len(want) {
		return name{form: formBrowse}
	}
	return name{form: formAnyService}
}

// parseBelow parses SERVICE and what is below it.
func parseBelow(service string, labels []string) name {
	n := name{form: formService, service: service}
	if len(labels) == 0 {
		return n
	}
	first, isPrefix := underscored(labels[0])
	switch {
	case !isPrefix && len(labels) == 1:
		n.form, n.label = formInstance, labels[0]
		return n
	case !isPrefix:
		return name{}
	case first == "zone":
		return parseZone(n, labels[1:])
	case len(labels) > 2:
		return name{}
	case first == "tcp" || first == "udp":
		if first == "udp" {
			n.proto = record.UDP
		}
		if len(labels) == 1 {
			n.form = formEmpty
			return n
		}
		port, ok := underscored(labels[1])
		if !ok || !record.IsLabel(port) {
			return name{}
		}
		n.form, n.label = formPort, port
		return n
	}
	n.label = first
	if len(labels) == 1 {
		n.form = formAnyScheme
		return n
	}
	text, _ := underscored(labels[1])
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil || number == 0 || text[0] == '0' {
		return name{}
	}
	n.form, n.number = formScheme, uint16(number)
	return n
}

// parseZone parses the labels left of _zone.SERVICE.
func parseZone(n name, labels []string) name {
	switch {
	case len(labels) == 0:
		n.form = formEmpty
		return n
	case labels[0] == "pin":
		n.form = formPin
	case labels[0] == "prefer":
		n.form = formPrefer
	default:
		return name{}
	}
	switch {
	case len(labels) == 1:
		n.form = formEmpty
	case len(labels) == 2 && record.IsLabel(labels[1]):
		n.label = labels[1]
	default:
		return name{}
	}
	return n
}

func underscored(label string) (string, bool) { return strings.CutPrefix(label, "_") }

// serviceIn returns the service that a relative name would belong to, whether
// or not the name means anything.
func serviceIn(rel string) string {
	above, last := cutLast(rel)
	if last == "service" {
		above, last = cutLast(above)
	}
	if last == "_tcp" {
		_, last = cutLast(above)
		last, _ = underscored(last)
	}
	return last
}

// cutLast splits a name before its last label.
func cutLast(name string) (above, last string) {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}
