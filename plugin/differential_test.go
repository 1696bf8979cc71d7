package fluid

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/record"
)

// generate returns the instances of a random zone.
func generate(t testing.TB, r *rand.Rand, services int) []record.Entry {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var out []record.Entry
	for s := range services {
		if r.IntN(8) == 0 {
			out = append(out, instance(t, fmt.Sprintf("svc%d host=h%d.example.net port=%d id=ext", s, s, r.IntN(2)*443)))
			continue
		}
		for i := range 1 + r.IntN(5) {
			text := fmt.Sprintf("svc%d 10.%d.%d.%d", s, r.IntN(3), s, i+1)
			if r.IntN(3) == 0 {
				text += fmt.Sprintf(",fd00::%x:%x", s+1, i+1)
			}
			if r.IntN(3) > 0 {
				text += " port=8080"
			}
			for _, p := range []string{" http:80", " https:443", " https:8443", " dns:53/udp"} {
				if r.IntN(4) == 0 && !strings.Contains(text, strings.Split(p, ":")[0]+":") {
					text += p
				}
			}
			for _, tag := range []string{" +eu", " +us", " +blue"} {
				if r.IntN(3) == 0 {
					text += tag
				}
			}
			text += pick("", " env=prod", " k=v a=b", ` q="\`)
			text += pick("", "", " ttl=30s", " weight=7", " prio=2", " zone=z1")
			out = append(out, instance(t, text))
		}
	}
	return out
}

// TestAgainstFile compares every answer with that of CoreDNS's file plugin for
// the exported zone, section by section as sets.
func TestAgainstFile(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	a := newAgent(t)
	a.commit(generate(t, r, 25)...)
	const origin = "fluid.internal."
	ours := serve(t, "fluid.internal:PORT {\n bind 127.0.0.1\n fluid {\n agent AGENT\n ns ns1."+origin+" 192.0.2.1 2001:db8::1\n ns ns2.example.org\n}\n}\n", a)
	ours.caughtUp()

	// The exported zone becomes the file.
	e := leases.running()
	eventually(t, "settled serial", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return !e.dirty
	})
	z := (*ours.zoneBlock().served.Load())[0]
	var zone strings.Builder
	fmt.Fprintln(&zone, z.negative(z.NegativeTTL)[0])
	names := map[string]bool{origin: true}
	for rrs := range z.Export(e) {
		for _, rr := range rrs {
			fmt.Fprintln(&zone, rr)
			names[rr.Header().Name] = true
		}
	}
	path := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(path, []byte(zone.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs := serve(t, "fluid.internal:PORT {\n bind 127.0.0.1\n file "+path+" fluid.internal\n}\n", nil)

	questions := corpus(names, origin)
	types := []uint16{
		dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeSRV, dns.TypePTR, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeCNAME,
		dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeDS, dns.TypeCAA,
	}
	asked := 0
	for i, name := range questions {
		for j, typ := range types {
			network, opts := "udp", []func(*dns.Msg){}
			switch (i + j) % 4 {
			case 1:
				opts = append(opts, edns(4096, false))
			case 2:
				opts = append(opts, edns(4096, true))
			case 3:
				network = "tcp"
			}
			if strings.Contains(name, "svc") && (i+j)%5 == 0 {
				name = mixCase(r, name)
			}
			got, want := both(t, ours, theirs, network, name, typ, opts...)
			asked++
			if got.Truncated || want.Truncated { // 512 bytes: what is cut differs
				continue
			}
			where := fmt.Sprintf("%s %s over %s", name, dns.TypeToString[typ], network)
			if got.Rcode != want.Rcode {
				t.Errorf("%s: rcode %s, want %s", where, dns.RcodeToString[got.Rcode], dns.RcodeToString[want.Rcode])
			}
			for k, sections := range [][2][]dns.RR{{got.Answer, want.Answer}, {got.Ns, want.Ns}, {got.Extra, want.Extra}} {
				if g, w := lines(sections[0]), lines(sections[1]); !slices.Equal(g, w) && !dropped(k, g, w, got) {
					t.Errorf("%s: %s\n got %q\nwant %q", where, []string{"answer", "authority", "additional"}[k], g, w)
				}
			}
			if t.Failed() && asked > 2000 {
				t.FailNow()
			}
		}
	}
	t.Logf("%d questions", asked)
}

// dropped reports whether the additional section was left out for room, which
// each server does its own way.
func dropped(section int, got, want []string, m *dns.Msg) bool {
	return section == 2 && m.IsEdns0() == nil && len(got) < len(want) && m.Len() > 300
}

func (s *server) zoneBlock() *block {
	for g := range leases.held {
		return g.blocks[0]
	}
	s.t.Fatal("no lease")
	return nil
}

func both(t *testing.T, ours, theirs *server, network, name string, typ uint16, opts ...func(*dns.Msg)) (got, want *dns.Msg) {
	t.Helper()
	at := func(s *server) string {
		if network == "tcp" {
			return s.tcp
		}
		return s.addr
	}
	got, err := exchange(at(ours), network, name, typ, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if want, err = exchange(at(theirs), network, name, typ, opts...); err != nil {
		t.Fatal(err)
	}
	return got, want
}

// corpus returns every name of a zone, the empty names between, and names that
// do not exist beside and below them.
func corpus(names map[string]bool, origin string) []string {
	all := map[string]bool{"nobody." + origin: true, "a.b.c." + origin: true, "xfluid.internal.": false}
	for n := range names {
		for n != origin {
			all[n] = true
			all["nothing-below."+n] = true
			_, n, _ = strings.Cut(n, ".")
		}
		all[n] = true
	}
	var out []string
	for n, in := range all {
		rel := strings.TrimSuffix(n, "."+origin)
		switch {
		case !in:
		// An unknown tag of a service that exists is NODATA by design; a file
		// cannot know that.
		case strings.HasPrefix(rel, "nothing-below.") && strings.HasSuffix(rel, ".service") && rel != "nothing-below.service" && !strings.Contains(rel, "_"):
		default:
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func mixCase(r *rand.Rand, s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'a' && c <= 'z' && r.IntN(2) == 0 {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}
