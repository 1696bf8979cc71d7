package record_test

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fluid-sd/fluid/plugin/record"
)

var label = rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?`)

func drawInstance(t *rapid.T) record.Instance {
	in := record.Instance{
		Service:    rapid.StringMatching(`svc-[a-z0-9]{1,8}`).Draw(t, "service"),
		ID:         rapid.OneOf(rapid.Just(""), label).Draw(t, "id"),
		Node:       rapid.OneOf(rapid.Just(""), label).Draw(t, "node"),
		Port:       rapid.Uint16().Draw(t, "port"),
		Tags:       rapid.SliceOfN(label, 0, 4).Draw(t, "tags"),
		Weight:     rapid.Uint16().Draw(t, "weight"),
		Priority:   rapid.Uint16().Draw(t, "priority"),
		Zone:       rapid.OneOf(rapid.Just(""), label).Draw(t, "zone"),
		TTL:        time.Duration(rapid.IntRange(0, 3600).Draw(t, "ttl")) * time.Second,
		Status:     record.Status(rapid.Uint8Range(0, 4).Draw(t, "status")),
		Registered: rapid.Int64Min(0).Draw(t, "registered"),
		Expires:    rapid.Int64Min(0).Draw(t, "expires"),
	}
	for range rapid.IntRange(1, 3).Draw(t, "addrs") {
		b := rapid.SliceOfN(rapid.Byte(), 2, 2).Draw(t, "addr")
		in.Addrs = append(in.Addrs, netip.AddrFrom4([4]byte{10, 0, b[0], b[1]}))
	}
	for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"http", "dns", "grpc"}), rapid.ID[string]).Draw(t, "ports") {
		in.Ports = append(in.Ports, record.Port{
			Name: name, Number: rapid.Uint16Min(1).Draw(t, "number"),
			Proto: record.Proto(rapid.Uint8Range(0, 1).Draw(t, "proto")),
		})
	}
	for _, key := range rapid.SliceOfDistinct(rapid.StringMatching(`[a-z]{1,3}`), rapid.ID[string]).Draw(t, "meta") {
		in.Meta = append(in.Meta, record.Pair{Key: key, Value: rapid.StringN(0, 8, 16).Draw(t, "value")})
	}
	in.Normalize()
	return in
}

func TestInstanceRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawInstance(t)
		enc := string(want.Append(nil))
		got, err := record.DecodeInstance(enc)
		if err != nil {
			t.Fatal(err)
		}
		if again := string(got.Append(nil)); again != enc {
			t.Fatalf("encoding is not canonical:\n got %x\nwant %x", again, enc)
		}
		if len(want.Tags) == 0 {
			want.Tags = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
		for n := range len(enc) { // every truncation is refused or is a record; none panics
			if _, err := record.DecodeInstance(enc[:n]); err != nil && !errors.Is(err, record.ErrMalformed) {
				t.Fatalf("truncated to %d: %v", n, err)
			}
		}
	})
}

func TestOtherRoundTrips(t *testing.T) {
	origin := record.OriginID{1, 2, 3}
	for _, o := range []record.Overlay{
		{ID: "o1", Kind: record.OverlayWeight, Service: "web", Instance: "10.0.0.9", Weight: 7, Reason: "load", Expires: 99},
		{ID: "o2", Kind: record.OverlayDeny, Node: "host-1"},
	} {
		got, err := record.DecodeOverlay(string(o.Append(nil)))
		if err != nil || got != o {
			t.Errorf("overlay: got %+v, %v; want %+v", got, err, o)
		}
	}
	for _, f := range []record.Fence{
		{Kind: record.FenceKill, Origin: origin, Service: "web", Instance: "a"},
		{Kind: record.FenceReap, Origin: origin, Epoch: 1 << 40},
		{Kind: record.FenceClass, Service: "web"},
	} {
		got, err := record.DecodeFence(string(f.Append(nil)))
		if err != nil || got != f {
			t.Errorf("fence: got %+v, %v; want %+v", got, err, f)
		}
	}
	for _, s := range []record.Service{
		{Name: "web", Class: record.ClassCritical},
		{Name: "web", Class: record.ClassEphemeral, TTL: time.Minute, NegativeTTL: time.Second, ServeStale: -1, AnswerLimit: 3, GuardOff: true},
	} {
		got, err := record.DecodeService(string(s.Append(nil)))
		if err != nil || got != s {
			t.Errorf("service: got %+v, %v; want %+v", got, err, s)
		}
	}
	n := record.Node{ID: "x", Name: "host-1", Addrs: addrs("10.0.0.1", "2001:db8::1"), Zone: "a", Version: "1", Members: []string{"m1", "m2"}, HTTP: "http://10.0.0.1:18080"}
	got, err := record.DecodeNode(string(n.Append(nil)))
	if err != nil || !reflect.DeepEqual(got, n) {
		t.Errorf("node: got %+v, %v; want %+v", got, err, n)
	}
	id, err := record.ParseOriginID(origin.String())
	if err != nil || id != origin {
		t.Errorf("ParseOriginID(%v) = %v, %v", origin, id, err)
	}
}

// A record of a newer version passes through this one without losing what
// this one does not know.
func TestUnknownFieldsSurvive(t *testing.T) {
	in := record.Instance{Service: "web", ID: "a", Addrs: addrs("10.0.0.1"), Weight: 1}
	enc := string(in.Append(nil)) + "\x82\x02\x03new" + "\x88\x02\x07" // fields 32 (bytes) and 33 (varint)
	got, err := record.DecodeInstance(enc)
	if err != nil {
		t.Fatal(err)
	}
	if again := string(got.Append(nil)); again != enc {
		t.Errorf("got %q, want %q", again, enc)
	}
}

func FuzzDecode(f *testing.F) {
	in := record.Instance{Service: "web", ID: "a", Addrs: addrs("10.0.0.1"), Tags: []string{"x"}, Meta: []record.Pair{{Key: "k", Value: "v"}}}
	f.Add(string(in.Append(nil)))
	f.Add("")
	f.Add("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
	f.Add(strings.Repeat("\x42\x00", 100))
	f.Fuzz(func(t *testing.T, s string) {
		if in, err := record.DecodeInstance(s); err == nil {
			again, err := record.DecodeInstance(string(in.Append(nil)))
			if err != nil || !reflect.DeepEqual(again, in) {
				t.Errorf("decode, encode, decode: got %+v, %v; want %+v", again, err, in)
			}
			in.Normalize()
			_ = in.Validate()
		}
		// The others share the field reader; they must not panic either.
		_, _ = record.DecodeService(s)
		_, _ = record.DecodeOverlay(s)
		_, _ = record.DecodeFence(s)
		_, _ = record.DecodeNode(s)
	})
}

func BenchmarkDecodeInstance(b *testing.B) {
	in := record.Instance{Service: "checkout", ID: "10.0.0.9-8080", Addrs: addrs("10.0.0.9"), Port: 8080, Tags: []string{"v1", "eu"}, Weight: 1}
	enc := string(in.Append(nil))
	b.ReportMetric(float64(len(enc)), "encoded-B")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := record.DecodeInstance(enc); err != nil {
			b.Fatal(err)
		}
	}
}
