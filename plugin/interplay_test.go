package fluid

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/autopath"
	_ "github.com/coredns/coredns/plugin/dns64"
	_ "github.com/coredns/coredns/plugin/header"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/nsid"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/tls"
	_ "github.com/coredns/coredns/plugin/tsig"
	"github.com/miekg/dns"
)

var _ autopath.AutoPather = (*Fluid)(nil)

// TestInterplay puts each plugin that wraps, rewrites or precedes fluid into
// its block, on every transport: one reply to a query, to the question that
// was asked, with the right answer.
func TestInterplay(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	zone := write("zone", "example.org. 60 IN SOA ns. h. 1 60 60 60 60\nexample.org. 60 IN NS ns.\nwww.example.org. 60 IN CNAME checkout.fluid.internal.\n")
	resolv := write("resolv.conf", "search fluid.internal sub.fluid.internal\n")
	const checkout = "checkout.fluid.internal. 5 in a 10.0.0.9"
	web := []string{"web.fluid.internal. 4 in a 10.0.1.1", "web.fluid.internal. 4 in a 10.0.1.2"}
	rows := []struct {
		plugins string // in the block, beside fluid
		name    string
		typ     uint16
		rcode   int
		want    []string
	}{
		{"", "checkout.fluid.internal.", dns.TypeA, 0, []string{checkout}},
		{"", "web.fluid.internal.", dns.TypeA, 0, web},
		{"", "nobody.fluid.internal.", dns.TypeA, dns.RcodeNameError, nil},
		{"errors\n prometheus 127.0.0.1:0\n log\n metadata\n nsid x", "web.fluid.internal.", dns.TypeA, 0, web},
		{"cache", "checkout.fluid.internal.", dns.TypeA, 0, []string{checkout}},
		{"loadbalance", "web.fluid.internal.", dns.TypeA, 0, web},
		{"minimal", "web.fluid.internal.", dns.TypeA, 0, web},
		{"any", "web.fluid.internal.", dns.TypeANY, 0, []string{`web.fluid.internal. 8482 in hinfo "any obsoleted" "see rfc 8482"`}},
		{"", "v6.fluid.internal.", dns.TypeANY, 0, []string{"v6.fluid.internal. 5 in aaaa fd00::6"}},
		{"header {\n response set aa\n }", "checkout.fluid.internal.", dns.TypeA, 0, []string{checkout}},
		{"acl fluid.internal {\n allow net 127.0.0.0/8\n block\n }", "checkout.fluid.internal.", dns.TypeA, 0, []string{checkout}},
		{"acl fluid.internal {\n block type A net *\n }", "checkout.fluid.internal.", dns.TypeA, dns.RcodeRefused, nil},
		{"rewrite name shop.example.org checkout.fluid.internal", "shop.example.org.", dns.TypeA, 0, []string{"shop.example.org. 5 in a 10.0.0.9"}},
		{"rewrite name shop.example.org checkout.fluid.internal\n acl fluid.internal {\n block type A net *\n }", "shop.example.org.", dns.TypeA, dns.RcodeRefused, nil},
		{"dns64 {\n allow_ipv4\n }", "checkout.fluid.internal.", dns.TypeAAAA, 0, []string{"checkout.fluid.internal. 2 in aaaa 64:ff9b::a00:9"}},
		{"transfer {\n to 127.0.0.1\n }", "checkout.fluid.internal.", dns.TypeA, 0, []string{checkout}},
		{"tsig {\n secret k. NoTCJU+DMqFWywaPyxSijrDEA/eC3nK0xi3AMEZuPVk=\n }", "checkout.fluid.internal.", dns.TypeA, 0, []string{checkout}},
		{"view v {\n expr incidr(client_ip(), '127.0.0.0/8')\n }", "checkout.fluid.internal.", dns.TypeA, 0, []string{checkout}},
		{"file " + zone + " example.org", "www.example.org.", dns.TypeA, 0, []string{checkout, "www.example.org. 60 in cname checkout.fluid.internal."}},
		{"autopath . " + resolv, "checkout.fluid.internal.", dns.TypeA, 0, []string{checkout}},
		{"autopath . " + resolv, "checkout.fluid.internal.fluid.internal.", dns.TypeA, 0, []string{
			checkout, "checkout.fluid.internal.fluid.internal. 5 in cname checkout.fluid.internal.",
		}},
		{"autopath @fluid", "checkout.fluid.internal.", dns.TypeA, 0, []string{checkout}},
		{"autopath @fluid", "fluid.internal.", dns.TypeNS, 0, []string{"fluid.internal. 5 in ns ns.dns.fluid.internal."}},
		{"autopath @fluid", "nobody.fluid.internal.", dns.TypeA, dns.RcodeNameError, nil},
		{"autopath @fluid", "checkout.fluid.internal.", dns.TypeAAAA, 0, nil},
		{"autopath @fluid\n file " + zone + " example.org", "www.example.org.fluid.internal.", dns.TypeA, 0, []string{
			checkout, "www.example.org. 60 in cname checkout.fluid.internal.", "www.example.org.fluid.internal. 60 in cname www.example.org.",
		}},
		{"template IN A late.fluid.internal {\n answer \"{{ .Name }} 60 IN A 192.0.2.9\"\n fallthrough\n }", "checkout.fluid.internal.", dns.TypeA, 0, []string{checkout}},
	}
	a := newAgent(t)
	fill(t, a)
	directive, conf := certificate(t)
	for _, row := range rows {
		label, _, _ := strings.Cut(row.plugins, "\n")
		t.Run(fmt.Sprintf("%s %s %s", label, row.name, dns.TypeToString[row.typ]), func(t *testing.T) {
			ports := map[string]int{}
			var corefile strings.Builder
			for _, tr := range transports {
				if tr.scheme == "dns+tcp" {
					continue
				}
				ports[tr.scheme] = freePort(t)
				certs := directive
				if tr.scheme == "dns" {
					certs = ""
				}
				fmt.Fprintf(&corefile, "%s://.:%d {\n bind 127.0.0.1\n %s\n %s\n fluid fluid.internal {\n agent %s\n }\n}\n",
					tr.scheme, ports[tr.scheme], certs, row.plugins, a.socket)
			}
			ports["dns+tcp"] = ports["dns"]
			inst, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile.String()), ServerTypeName: "dns"})
			if err != nil {
				t.Fatalf("%v in\n%s", err, corefile.String())
			}
			t.Cleanup(func() {
				for _, err := range append(inst.ShutdownCallbacks(), inst.Stop()) {
					if err != nil {
						t.Error(err)
					}
				}
			})
			for _, tr := range transports {
				overTransport(t, tr.scheme, func(q *dns.Msg) (*dns.Msg, error) {
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					defer cancel()
					return tr.ask(ctx, net.JoinHostPort("127.0.0.1", fmt.Sprint(ports[tr.scheme])), conf, q)
				}, row.name, row.typ, row.rcode, row.want)
			}
		})
	}
}

func overTransport(t *testing.T, scheme string, ask func(*dns.Msg) (*dns.Msg, error), name string, typ uint16, rcode int, want []string) {
	t.Helper()
	for _, size := range []uint16{0, 1232} {
		q := queryFor(name, typ, size)
		var m *dns.Msg
		var err error
		eventually(t, "reply over "+scheme, func() bool {
			m, err = ask(q)
			return err == nil || !strings.Contains(err.Error(), "refused")
		})
		if err != nil {
			t.Errorf("%s: %v", scheme, err)
			return
		}
		if len(m.Question) != 1 || m.Question[0] != q.Question[0] {
			t.Errorf("%s: reply to %v, want %v", scheme, m.Question, q.Question)
		}
		if m.Rcode != rcode {
			t.Errorf("%s: rcode %s, want %s", scheme, dns.RcodeToString[m.Rcode], dns.RcodeToString[rcode])
		}
		if want == nil {
			want = []string{}
		}
		compare(t, scheme, lines(m.Answer), want)
	}
}
