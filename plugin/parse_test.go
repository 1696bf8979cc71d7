package fluid

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
)

func parseText(t *testing.T, text string) (*block, process, error) {
	t.Helper()
	c := caddy.NewTestController("dns", text)
	c.ServerBlockKeys = []string{"dns://example.org.:53"}
	b, given, err := parse(c)
	if err != nil {
		return nil, process{}, err
	}
	p := given.process()
	return b, p, p.validate()
}

func keyFile(t *testing.T, mode os.FileMode, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParseRefuses(t *testing.T) {
	const key = "000102030405060708090a0b0c0d0e0f"
	tests := []struct{ name, text, want string }{
		{"twice in a block", "fluid\nfluid", "only be used once per Server Block"},
		{"unknown option", "fluid {\n tll 5\n}", "unknown property 'tll'"},
		{"option twice", "fluid {\n ttl 5\n ttl 6\n}", "ttl is given twice"},
		{"ttl without a number", "fluid {\n ttl\n}", "Wrong argument count"},
		{"ttl with two", "fluid {\n ttl 1 2\n}", "Wrong argument count"},
		{"ttl not a number", "fluid {\n ttl x\n}", `"x" is not a number from 0 to 3600`},
		{"ttl negative", "fluid {\n ttl -1\n}", "not a number"},
		{"ttl too large", "fluid {\n ttl 3601\n}", "not a number"},
		{"negative_ttl too large", "fluid {\n negative_ttl 99999\n}", "not a number"},
		{"capacity not a number", "fluid {\n capacity lots\n}", "not a number"},
		{"denial negative", "fluid {\n denial -5\n}", "not a number"},
		{"answer_limit zero", "fluid {\n answer_limit 0\n}", "from 1"},
		{"serve_stale without", "fluid {\n serve_stale\n}", "Wrong argument count"},
		{"serve_stale negative", "fluid {\n serve_stale -1h\n}", "not a duration"},
		{"serve_stale bad ttl", "fluid {\n serve_stale 1h x\n}", "not a number"},
		{"serve_stale three", "fluid {\n serve_stale 1h 1 1\n}", "Wrong argument count"},
		{"agent without", "fluid {\n agent\n}", "Wrong argument count"},
		{"agent over tcp", "fluid {\n agent tcp://127.0.0.1:1\n}", "not the path of a unix socket"},
		{"cluster two", "fluid {\n cluster a b\n}", "Wrong argument count"},
		{"snapshot without", "fluid {\n snapshot\n}", "Wrong argument count"},
		{"startup_timeout bad", "fluid {\n startup_timeout soon\n}", "not a duration"},
		{"gossip without", "fluid {\n gossip\n}", "Wrong argument count"},
		{"gossip unknown", "fluid {\n gossip raft\n}", "not one of inmemory, memberlist and crdt"},
		{"gossip inmemory with address", "fluid {\n gossip inmemory 127.0.0.1\n}", "takes no address"},
		{"gossip bad address", "fluid {\n gossip crdt host:1\n}", "not an IP address"},
		{"gossip bad port", "fluid {\n gossip crdt 127.0.0.1:x\n}", "not a port"},
		{"gossip open without key", "fluid {\n gossip crdt 0.0.0.0:7947\n}", "give gossip_key"},
		{"advertise open without key", "fluid {\n gossip crdt\n gossip_advertise 192.0.2.1\n}", "give gossip_key"},
		{"gossip_node not a label", "fluid {\n gossip_node A.b\n}", "not a label"},
		{"gossip_advertise bad", "fluid {\n gossip_advertise here\n}", "not an IP address"},
		{"gossip_seeds none", "fluid {\n gossip_seeds\n}", "Wrong argument count"},
		{"gossip_seeds a url", "fluid {\n gossip_seeds http://x/\n}", "not an address"},
		{"gossip_key none", "fluid {\n gossip_key\n}", "Wrong argument count"},
		{"gossip_key missing", "fluid {\n gossip_key /nonexistent/key\n}", "no such file"},
		{"gossip_key readable by all", "fluid {\n gossip_key " + keyFile(t, 0o644, key) + "\n}", "open to every user"},
		{"gossip_key not hex", "fluid {\n gossip_key " + keyFile(t, 0o600, "zz") + "\n}", ":1: a key is"},
		{"gossip_key empty", "fluid {\n gossip_key " + keyFile(t, 0o600, "# none\n") + "\n}", "holds no key"},
		{"gossip_label none", "fluid {\n gossip_label\n}", "Wrong argument count"},
		{"gossip_allow bad", "fluid {\n gossip_allow 10.0.0.0/33\n}", "not a CIDR"},
		{"gossip_compression arg", "fluid {\n gossip_compression gzip\n}", "Wrong argument count"},
		{"gossip_insecure arg", "fluid {\n gossip_insecure yes\n}", "Wrong argument count"},
		{"why none", "fluid {\n why\n}", "Wrong argument count"},
		{"why bad", "fluid {\n why anybody\n}", "not a CIDR"},
		{"ns none", "fluid {\n ns\n}", "Wrong argument count"},
		{"ns bad address", "fluid {\n ns ns1.example.org x\n}", "not an IP address"},
		{"ns twice", "fluid {\n ns ns1.example.org 192.0.2.1\n ns NS1.example.org\n}", "given twice"},
		{"ns outside with address", "fluid {\n ns ns1.example.net 192.0.2.1\n}", "lies outside the zones"},
		{"only reverse zones", "fluid 10.0.0.0/8", "all reverse zones"},
		{"bad zone", "fluid a..b", "is not a zone"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := parseText(t, tc.text)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestParseDefaults(t *testing.T) {
	b, p, err := parseText(t, "fluid")
	if err != nil {
		t.Fatal(err)
	}
	if want := defaultProcess(); !reflect.DeepEqual(p, want) {
		t.Errorf("process %+v, want %+v", p, want)
	}
	if p.Capacity != 1_000_000 || p.Denial != 10_000 || p.StartupTimeout != 5*time.Second {
		t.Errorf("defaults of the process: %+v", p)
	}
	z := b.zones[0]
	if len(b.zones) != 1 || z.Origin != "example.org." || z.TTL != 5 || z.NegativeTTL != 2 || z.AnswerLimit != 0 {
		t.Errorf("zone %+v", z.Config)
	}
	if b.staleFor != forever || b.staleTTL != 5 || len(z.Servers) != 1 || z.Servers[0].Name != "ns.dns.example.org." || len(z.Servers[0].Addrs) == 0 {
		t.Errorf("block %+v, servers %+v", b, z.Servers)
	}
	t.Setenv("FLUID_SOCKET", "/x/y.sock")
	if _, p, _ := parseText(t, "fluid"); p.Agent != "/x/y.sock" {
		t.Errorf("agent %q, want $FLUID_SOCKET", p.Agent)
	}
}

func TestParseEverything(t *testing.T) {
	key := keyFile(t, 0o640, "# first\n000102030405060708090a0b0c0d0e0f\n\n000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n")
	b, p, err := parseText(t, `fluid Fluid.Internal 10.0.0.0/8 sub.fluid.internal {
		agent unix:///run/x.sock
		cluster abc
		ttl 0
		negative_ttl 10
		capacity 5
		denial 6
		serve_stale 90 30
		snapshot /var/lib/x
		answer_limit 8
		gossip crdt 0.0.0.0
		gossip_node n1
		gossip_advertise 192.0.2.1:1000
		gossip_seeds 127.0.0.1:7946 seed.example.org
		gossip_key `+key+`
		gossip_label prod
		gossip_allow 10.0.0.0/8 192.0.2.1
		gossip_compression
		gossip_insecure
		why 10.0.0.0/8
		startup_timeout 0s
		ns ns1.fluid.internal 192.0.2.53
		ns ns2.example.net
		fallthrough example.org
	}`)
	if err != nil {
		t.Fatal(err)
	}
	if p.Agent != "/run/x.sock" || p.Cluster != "abc" || p.Capacity != 5 || p.Denial != 6 || p.Snapshot != "/var/lib/x" ||
		p.Gossip != gossipCRDT || p.GossipAddress != "0.0.0.0:7947" || p.GossipNode != "n1" || p.GossipAdvertise != "192.0.2.1:1000" ||
		len(p.GossipSeeds) != 2 || len(p.GossipKeys) != 2 || len(p.GossipKeys[1]) != 32 || p.GossipLabel != "prod" ||
		len(p.GossipAllow) != 2 || !p.GossipCompression || !p.GossipInsecure || p.StartupTimeout != 0 {
		t.Errorf("process %+v", p)
	}
	if b.staleFor != 90*time.Second || b.staleTTL != 30 || len(b.why) != 1 || !b.fall.Through("a.example.org.") || b.fall.Through("example.net.") {
		t.Errorf("block %+v", b)
	}
	var origins []string
	for _, z := range b.zones {
		origins = append(origins, z.Origin+" "+z.Forward)
		if len(z.Servers) != 2 || z.TTL != 0 || z.AnswerLimit != 8 {
			t.Errorf("zone %+v", z.Config)
		}
	}
	want := []string{"sub.fluid.internal. ", "10.in-addr.arpa. fluid.internal.", "fluid.internal. "}
	if !reflect.DeepEqual(origins, want) {
		t.Errorf("zones %q, want %q", origins, want)
	}
}

// Blocks may repeat process-wide options, or leave them to each other; they
// must not disagree.
func TestMergeSettings(t *testing.T) {
	read := func(text string) settings {
		_, given, err := parse(caddy.NewTestController("dns", text))
		if err != nil {
			t.Fatal(err)
		}
		return given
	}
	s := settings{}
	for _, text := range []string{"fluid a.org {\n agent /x\n}", "fluid b.org", "fluid c.org {\n agent /x\n capacity 7\n ttl 9\n}", "fluid d.org {\n ttl 8\n}"} {
		if err := s.merge(read(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if p := s.process(); p.Agent != "/x" || p.Capacity != 7 {
		t.Errorf("merged %+v", p)
	}
	err := s.merge(read("fluid e.org {\n capacity 8\n}"))
	if err == nil || !strings.Contains(err.Error(), "capacity") {
		t.Errorf("error %v, want one about capacity", err)
	}
}

// newTestController returns a controller for a block of example.org.
func newTestController(t testing.TB) *caddy.Controller {
	t.Helper()
	c := caddy.NewTestController("dns", "fluid")
	c.ServerBlockKeys = []string{"dns://example.org.:53"}
	return c
}
