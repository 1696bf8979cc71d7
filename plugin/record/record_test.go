package record_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

func TestHostLabel(t *testing.T) {
	tests := []struct{ id, canonical, label string }{
		{"web-1", "web-1", "web-1"},
		{"10.0.0.9", "10.0.0.9", "10-0-0-9"},
		{"10.0.0.9-8080", "10.0.0.9-8080", "10-0-0-9-8080"},
		{"2001:DB8::1", "2001:db8::1", "20010db8000000000000000000000001"},
		{"2001:db8::1-53", "2001:db8::1-53", "20010db8000000000000000000000001-53"},
		{"::ffff:10.0.0.9", "10.0.0.9", "10-0-0-9"},
		{"10-0-0-9", "10-0-0-9", "10-0-0-9"}, // collides with the address on purpose: one label, one instance
	}
	for _, tt := range tests {
		id, err := record.CanonicalID("id", tt.id)
		if err != nil || id != tt.canonical {
			t.Errorf("CanonicalID(%q) = %q, %v; want %q", tt.id, id, err, tt.canonical)
		}
		if got := record.HostLabel(id); got != tt.label {
			t.Errorf("HostLabel(%q) = %q, want %q", id, got, tt.label)
		}
	}
	for _, id := range []string{"", "Web", "web.1", "web_1", "-web", "10.0.0.9-", "10.0.0.9-0", "10.0.0.9-08", "10.0.0.9-65536", "fe80::1%eth0", strings.Repeat("a", 64)} {
		if got, err := record.CanonicalID("id", id); err == nil {
			t.Errorf("CanonicalID(%q) = %q, want an error", id, got)
		}
		if got := record.HostLabel(id); got != "" {
			t.Errorf("HostLabel(%q) = %q, want none", id, got)
		}
	}
}

func addrs(s ...string) []netip.Addr {
	var list []netip.Addr
	for _, a := range s {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

func TestInstanceValidate(t *testing.T) {
	tests := []struct {
		name  string
		field string // of the error; empty: valid
		large bool
		edit  func(*record.Instance)
	}{
		{name: "plain", edit: func(*record.Instance) {}},
		{name: "loopback", edit: func(in *record.Instance) { in.Addrs = addrs("127.0.0.1", "::1") }},
		{name: "host", edit: func(in *record.Instance) { in.Addrs, in.Host, in.ID = nil, "DB.example.org", "" }},
		{name: "service missing", field: "service", edit: func(in *record.Instance) { in.Service = "" }},
		{name: "service with capital", field: "service", edit: func(in *record.Instance) { in.Service = "Checkout" }},
		{name: "service with dot", field: "service", edit: func(in *record.Instance) { in.Service = "a.b" }},
		{name: "service of 62", edit: func(in *record.Instance) { in.Service = strings.Repeat("a", 62) }},
		{name: "service of 63", field: "service", edit: func(in *record.Instance) { in.Service = strings.Repeat("a", 63) }},
		{name: "service reserved", field: "service", edit: func(in *record.Instance) { in.Service = "node" }},
		{name: "service underscore", field: "service", edit: func(in *record.Instance) { in.Service = "_tcp" }},
		{name: "no address", field: "ip", edit: func(in *record.Instance) { in.Addrs = nil }},
		{name: "host and address", field: "host", edit: func(in *record.Instance) { in.Host = "a.example." }},
		{name: "host without dot", field: "host", edit: func(in *record.Instance) { in.Addrs, in.Host = nil, "db" }},
		{name: "host is address", field: "host", edit: func(in *record.Instance) { in.Addrs, in.Host = nil, "10.0.0.1" }},
		{name: "unspecified", field: "ips[0]", edit: func(in *record.Instance) { in.Addrs = addrs("0.0.0.0") }},
		{name: "multicast", field: "ips[0]", edit: func(in *record.Instance) { in.Addrs = addrs("224.0.0.1") }},
		{name: "broadcast", field: "ips[0]", edit: func(in *record.Instance) { in.Addrs = addrs("255.255.255.255") }},
		{name: "link-local", field: "ips[1]", edit: func(in *record.Instance) { in.Addrs = addrs("10.0.0.1", "fe80::1") }},
		{name: "id with dot", field: "id", edit: func(in *record.Instance) { in.ID = "web.1" }},
		{name: "node", field: "node", edit: func(in *record.Instance) { in.Node = "Node 1" }},
		{name: "zone", field: "zone", edit: func(in *record.Instance) { in.Zone = "eu_1" }},
		{name: "ttl fraction", field: "ttl", edit: func(in *record.Instance) { in.TTL = 1500 * time.Millisecond }},
		{name: "ttl long", field: "ttl", edit: func(in *record.Instance) { in.TTL = 2 * time.Hour }},
		{name: "tag", field: "tags[0]", edit: func(in *record.Instance) { in.Tags = []string{"V1"} }},
		{name: "port name", field: "ports.8080", edit: func(in *record.Instance) { in.Ports = []record.Port{{Name: "8080", Number: 1}} }},
		{name: "port zero", field: "ports.http", edit: func(in *record.Instance) { in.Ports = []record.Port{{Name: "http"}} }},
		{name: "port twice", field: "ports.http", edit: func(in *record.Instance) {
			in.Ports = []record.Port{{Name: "http", Number: 1}, {Name: "http", Number: 2}}
		}},
		{name: "meta key", field: "meta", edit: func(in *record.Instance) { in.Meta = []record.Pair{{Key: "a=b"}} }},
		{name: "meta value", field: "meta.k", large: true, edit: func(in *record.Instance) {
			in.Meta = []record.Pair{{Key: "k", Value: strings.Repeat("v", 513)}}
		}},
		{name: "record of 2 KiB", field: "instance", large: true, edit: func(in *record.Instance) {
			for _, k := range []string{"a", "b", "c", "d"} {
				in.Meta = append(in.Meta, record.Pair{Key: k, Value: strings.Repeat("v", 512)})
			}
		}},
		{name: "addresses", field: "ips", large: true, edit: func(in *record.Instance) {
			for i := range 17 {
				in.Addrs = append(in.Addrs, netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}))
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := record.Instance{Service: "checkout", ID: "web-1", Addrs: addrs("10.0.0.9"), Weight: 1}
			tt.edit(&in)
			in.Normalize()
			err := in.Validate()
			var field *record.FieldError
			switch {
			case tt.field == "" && err != nil:
				t.Fatalf("Validate() = %v, want nil", err)
			case tt.field != "" && !errors.As(err, &field):
				t.Fatalf("Validate() = %v, want a FieldError", err)
			case tt.field != "" && (field.Field != tt.field || field.Problem == "" || field.Fix == ""):
				t.Errorf("Validate() = %+v, want field %q with problem and fix", field, tt.field)
			}
			if got := errors.Is(err, record.ErrTooLarge); got != tt.large {
				t.Errorf("errors.Is(%v, ErrTooLarge) = %v, want %v", err, got, tt.large)
			}
		})
	}
}

func TestNormalize(t *testing.T) {
	in := record.Instance{
		Service: "web", Addrs: addrs("::ffff:10.0.0.9", "2001:db8::1", "10.0.0.9"), Port: 80,
		Tags: []string{"b", "a", "b"}, Ports: []record.Port{{Name: "x", Number: 2}, {Name: "http", Number: 1}},
	}
	in.Normalize()
	if in.ID != "10.0.0.9-80" || len(in.Addrs) != 2 || !in.HasTag("a") || len(in.Tags) != 2 {
		t.Errorf("Normalize() = %+v", in)
	}
	if p, ok := in.PortNamed("http"); !ok || p.Number != 1 {
		t.Errorf("PortNamed(http) = %v, %v", p, ok)
	}
	if _, ok := in.PortNamed("dns"); ok {
		t.Error("PortNamed(dns) found")
	}
	host := record.Instance{Service: "db", Host: "Db.Example.org"}
	host.Normalize()
	if host.Host != "db.example.org." || host.ID != "db" {
		t.Errorf("Normalize() = %+v", host)
	}
}

func TestPosition(t *testing.T) {
	order := []record.Position{{}, {Generation: 1, Index: 9}, {Generation: 1, Index: 10}, {Generation: 2, Index: 1}}
	for i, p := range order {
		got, err := record.ParsePosition(p.String())
		if err != nil || got != p {
			t.Errorf("ParsePosition(%v) = %v, %v", p, got, err)
		}
		for j, q := range order {
			if p.Before(q) != (i < j) {
				t.Errorf("%v.Before(%v) = %v", p, q, p.Before(q))
			}
		}
	}
	for _, s := range []string{"", "1", "1:", ":1", "a:b", "1:-1"} {
		if _, err := record.ParsePosition(s); err == nil {
			t.Errorf("ParsePosition(%q) succeeded", s)
		}
	}
}

func TestOverlayValidate(t *testing.T) {
	tests := []struct {
		name, field string
		overlay     record.Overlay
	}{
		{"instance", "", record.Overlay{ID: "o1", Kind: record.OverlayDrain, Service: "web", Instance: "10.0.0.9"}},
		{"node", "", record.Overlay{ID: "o1", Kind: record.OverlayDeny, Node: "host-1"}},
		{"kind", "kind", record.Overlay{ID: "o1", Service: "web"}},
		{"id", "id", record.Overlay{ID: "O 1", Kind: record.OverlayDrain, Service: "web"}},
		{"both", "node", record.Overlay{ID: "o1", Kind: record.OverlayDrain, Service: "web", Node: "n"}},
		{"none", "service", record.Overlay{ID: "o1", Kind: record.OverlayDrain}},
		{"instance id", "instance", record.Overlay{ID: "o1", Kind: record.OverlayDrain, Service: "web", Instance: "A"}},
		{"weight", "weight", record.Overlay{ID: "o1", Kind: record.OverlayDrain, Service: "web", Weight: 3}},
		{"reason", "reason", record.Overlay{ID: "o1", Kind: record.OverlayDrain, Service: "web", Reason: strings.Repeat("r", 257)}},
	}
	for _, tt := range tests {
		err := tt.overlay.Validate()
		var field *record.FieldError
		if errors.As(err, &field) != (tt.field != "") || field != nil && field.Field != tt.field {
			t.Errorf("%s: Validate() = %v, want field %q", tt.name, err, tt.field)
		}
	}
}
