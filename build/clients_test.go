package build_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// many is how many addresses the large answer has: more than a UDP reply takes.
const many = 200

var manyAddress = regexp.MustCompile(`\b10\.8\.\d+\.\d+\b`)

// startClients runs an agent and CoreDNS on free ports, with what the clients
// ask for, and returns their environment and the port of DNS.
func startClients(t *testing.T) (env []string, port string) {
	t.Helper()
	env = userEnv(t)
	http := "127.0.0.1:" + freePort(t)
	env = append(env, "FLUID_HTTP_BIND="+http, "FLUID_ADDR=http://"+http)
	start(t, env, filepath.Join(binDir(t), "fluid-agent"))
	type app struct {
		AppID string `json:"appId"`
		IP    string `json:"ip"`
		Port  int    `json:"port,omitempty"`
	}
	apps := []app{{"checkout", "10.0.0.9", 0}, {"v6", "fd00::6", 0}, {"web", "10.0.1.1", 8080}, {"web", "10.0.1.2", 8080}}
	for i := range many {
		apps = append(apps, app{"big", fmt.Sprintf("10.8.%d.%d", i/100, i%100+1), 0})
	}
	text, err := json.Marshal(apps)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "register", func() error {
		cmd := command(t, env, filepath.Join(binDir(t), "fluidctl"), "register", "--file", "-")
		cmd.Stdin = strings.NewReader(string(text))
		return cmd.Run()
	})
	port = freePort(t)
	start(t, env, filepath.Join(binDir(t), "coredns"), "-conf", clientsCorefile(t, port))
	eventually(t, "answer", want("127.0.0.1:"+port, "checkout.fluid.internal", "10.0.0.9"))
	return env, port
}

func clientsCorefile(t *testing.T, port string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Corefile")
	text := "fluid.internal:" + port + " {\n bind 127.0.0.1\n bufsize 1232\n errors\n fluid {\n ttl 1\n negative_ttl 1\n }\n}\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The programs that people ask DNS with understand each kind of answer: an
// address, a name without data of the type, a service with its port, a name
// that does not exist, and an answer for which they must turn to TCP.
func TestClients(t *testing.T) {
	env, port := startClients(t)
	const (
		found = iota
		noData
		service
		noName
		large
	)
	questions := [...][2]string{
		found: {"checkout", "A"}, noData: {"checkout", "AAAA"}, service: {"_web._tcp", "SRV"}, noName: {"nobody", "A"}, large: {"big", "A"},
	}
	cares, err := filepath.Abs("testdata/cares.py")
	if err != nil {
		t.Fatal(err)
	}
	const header = `(?s)status: %s.*ANSWER: %d\b`
	clients := []struct {
		program, debianPackage string
		args                   []string // NAME and TYPE stand for the question
		want                   [5]string
		noNameCode             int // exit code of a name that does not exist
	}{
		{
			"dig", "bind9-dnsutils",
			[]string{"@127.0.0.1", "-p", port, "+time=5", "NAME", "TYPE"},
			[...]string{
				found:   fmt.Sprintf(header, "NOERROR", 1) + `.*IN\s+A\s+10\.0\.0\.9\n`,
				noData:  fmt.Sprintf(header, "NOERROR", 0) + `.*IN\s+SOA`,
				service: fmt.Sprintf(header, "NOERROR", 2) + `.*SRV\s+0 1 8080 10-0-1-\d-8080\.web\.fluid\.internal\.`,
				noName:  fmt.Sprintf(header, "NXDOMAIN", 0) + `.*IN\s+SOA`,
				large:   `(?s)Truncated, retrying in TCP mode.*` + fmt.Sprintf(header, "NOERROR", many),
			},
			0,
		},
		{
			"kdig", "knot-dnsutils",
			[]string{"@127.0.0.1", "-p", port, "+time=5", "NAME", "TYPE"},
			[...]string{
				found:   fmt.Sprintf(header, "NOERROR", 1) + `.*IN\s+A\s+10\.0\.0\.9\n`,
				noData:  fmt.Sprintf(header, "NOERROR", 0) + `.*IN\s+SOA`,
				service: fmt.Sprintf(header, "NOERROR", 2) + `.*SRV\s+0 1 8080 10-0-1-\d-8080\.web\.fluid\.internal\.`,
				noName:  fmt.Sprintf(header, "NXDOMAIN", 0) + `.*IN\s+SOA`,
				large:   `(?s)truncated reply.*retrying over TCP.*` + fmt.Sprintf(header, "NOERROR", many),
			},
			0,
		},
		{
			"host", "bind9-host",
			[]string{"-p", port, "-t", "TYPE", "NAME", "127.0.0.1"},
			[...]string{
				found:   `has address 10\.0\.0\.9\n`,
				noData:  `has no AAAA record`,
				service: `has SRV record 0 1 8080 10-0-1-\d-8080\.web\.fluid\.internal\.`,
				noName:  `not found: 3\(NXDOMAIN\)`,
				large:   `has address 10\.8\.1\.100\n`,
			},
			1,
		},
		{
			"drill", "ldnsutils",
			[]string{"-a", "-p", port, "NAME", "@127.0.0.1", "TYPE"},
			[...]string{
				found:   `(?s)rcode: NOERROR.*ANSWER: 1,.*IN\s+A\s+10\.0\.0\.9\n`,
				noData:  `(?s)rcode: NOERROR.*ANSWER: 0,.*IN\s+SOA`,
				service: `(?s)rcode: NOERROR.*ANSWER: 2,.*SRV\s+0 1 8080 10-0-1-\d-8080\.web\.fluid\.internal\.`,
				noName:  `(?s)rcode: NXDOMAIN.*ANSWER: 0,.*IN\s+SOA`,
				large:   fmt.Sprintf(`(?s)rcode: NOERROR.*ANSWER: %d,`, many),
			},
			0,
		},
		{
			"/usr/bin/python3", "python3-pycares",
			[]string{cares, port, "NAME", "TYPE"},
			[...]string{
				found:   `^10\.0\.0\.9\n$`,
				noData:  `^ARES_ENODATA\n$`,
				service: `^(10-0-1-\d-8080\.web\.fluid\.internal 8080\n){2}$`,
				noName:  `^ARES_ENOTFOUND\n$`,
				large:   `10\.8\.1\.100\n`,
			},
			0,
		},
	}
	for _, c := range clients {
		t.Run(filepath.Base(c.program), func(t *testing.T) {
			needs(t, c.program, c.debianPackage)
			if c.debianPackage == "python3-pycares" && exec.CommandContext(t.Context(), c.program, "-c", "import pycares").Run() != nil {
				t.Skip("needs pycares (Debian package python3-pycares)")
			}
			for i, q := range questions {
				args := slices.Clone(c.args)
				for j, a := range args {
					args[j] = strings.NewReplacer("NAME", q[0]+".fluid.internal", "TYPE", q[1]).Replace(a)
				}
				cmd := command(t, env, c.program, args...)
				err := cmd.Run()
				out := cmd.Stdout.(*lockedBuilder).String()
				code := cmd.ProcessState.ExitCode()
				if wantCode := map[bool]int{true: c.noNameCode}[i == noName]; code != wantCode {
					t.Errorf("%v: exit code %d (%v), want %d", q, code, err, wantCode)
				}
				if !regexp.MustCompile(c.want[i]).MatchString(out) {
					t.Errorf("%v: want %s in\n%s", q, c.want[i], out)
				}
				if n := addresses(out); i == large && n != many {
					t.Errorf("%v: %d addresses, want %d", q, n, many)
				}
			}
		})
	}
}

// addresses counts the different addresses of the large answer in a text.
func addresses(text string) int {
	all := manyAddress.FindAllString(text, -1)
	slices.Sort(all)
	return len(slices.Compact(all))
}

// glibc asks for A and AAAA at once from one socket, and a service with only
// one of the two must be found.
func TestClientGlibc(t *testing.T) {
	needs(t, "getent", "libc-bin")
	needs(t, "ip", "iproute2")
	if os.Getuid() != 0 {
		t.Skip("needs root for namespaces")
	}
	env, _ := startClients(t)
	cmd := command(t, env, "unshare", "--mount", "--net", "--fork", "build/testdata/glibc.sh",
		"ahosts checkout.fluid.internal", "ahosts checkout", "ahostsv4 checkout.fluid.internal", "ahostsv6 checkout.fluid.internal",
		"hosts checkout.fluid.internal", "ahosts v6.fluid.internal", "ahostsv6 v6.fluid.internal", "ahostsv4 v6.fluid.internal", "ahosts nobody.fluid.internal", "ahosts big.fluid.internal",
		"--", filepath.Join(binDir(t), "coredns"), "-conf", clientsCorefile(t, "53"))
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	out := cmd.Stdout.(*lockedBuilder).String()
	for _, line := range []string{
		"ahosts checkout.fluid.internal: code 0: 10.0.0.9",
		"ahosts checkout: code 0: 10.0.0.9", // through the search path
		"ahostsv4 checkout.fluid.internal: code 0: 10.0.0.9",
		"ahostsv6 checkout.fluid.internal: code 0: ::ffff:10.0.0.9", // no AAAA: mapped (AI_V4MAPPED)
		"hosts checkout.fluid.internal: code 0: 10.0.0.9",
		"ahosts v6.fluid.internal: code 0: fd00::6",
		"ahostsv6 v6.fluid.internal: code 0: fd00::6",
		"ahostsv4 v6.fluid.internal: code 2: ", // no A
		"ahosts nobody.fluid.internal: code 2: ",
	} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("want %q in\n%s", line, out)
		}
	}
	if n := addresses(out); n != many {
		t.Errorf("%d addresses of the large answer, want %d", n, many)
	}
}

// Go's own resolver, over UDP and, for the large answer, TCP.
func TestClientGo(t *testing.T) {
	_, port := startClients(t)
	overTCP := false
	r := net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		overTCP = overTCP || network == "tcp"
		return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
	}}
	ctx := t.Context()
	if got, err := r.LookupHost(ctx, "checkout.fluid.internal."); err != nil || !slices.Equal(got, []string{"10.0.0.9"}) {
		t.Errorf("LookupHost: got %v, %v", got, err)
	}
	var dnsErr *net.DNSError
	if got, err := r.LookupNetIP(ctx, "ip6", "checkout.fluid.internal."); !errors.As(err, &dnsErr) || !dnsErr.IsNotFound || dnsErr.IsTemporary {
		t.Errorf("no AAAA: got %v, %v", got, err)
	}
	if got, err := r.LookupHost(ctx, "nobody.fluid.internal."); !errors.As(err, &dnsErr) || !dnsErr.IsNotFound || dnsErr.IsTemporary {
		t.Errorf("no such name: got %v, %v", got, err)
	}
	_, srvs, err := r.LookupSRV(ctx, "web", "tcp", "fluid.internal.")
	if err != nil || len(srvs) != 2 {
		t.Fatalf("LookupSRV: got %v, %v", srvs, err)
	}
	for _, srv := range srvs {
		got, err := r.LookupHost(ctx, srv.Target)
		if err != nil || len(got) != 1 || !strings.HasPrefix(got[0], "10.0.1.") || srv.Port != 8080 {
			t.Errorf("%+v: got %v, %v", srv, got, err)
		}
	}
	if overTCP {
		t.Error("TCP was used for small answers")
	}
	if got, err := r.LookupHost(ctx, "big.fluid.internal."); err != nil || len(got) != many || !overTCP {
		t.Errorf("large: %d addresses, %v, TCP %v; want %d over TCP", len(got), err, overTCP, many)
	}
}

// Forwarders pass each kind of answer on, and keep none for longer than its
// TTL, which is a second here.
func TestForwarders(t *testing.T) {
	env, port := startClients(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, f := range []struct {
		program, debianPackage, conf string
		args                         []string
	}{
		{"unbound", "unbound", `server:
  interface: 127.0.0.1
  port: PORT
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "` + dir + `"
  pidfile: ""
  use-syslog: no
  do-not-query-localhost: no
  domain-insecure: "fluid.internal"
remote-control:
  control-enable: no
forward-zone:
  name: "fluid.internal"
  forward-addr: 127.0.0.1@` + port + "\n", []string{"-d", "-p", "-c", "CONF"}},
		{
			"dnsmasq", "dnsmasq-base", "server=/fluid.internal/127.0.0.1#" + port +
				"\nport=PORT\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nuser=root\npid-file=\n",
			[]string{"--keep-in-foreground", "--conf-file=CONF"},
		},
	} {
		t.Run(f.program, func(t *testing.T) {
			needs(t, f.program, f.debianPackage)
			own := freePort(t)
			conf := file(f.program, strings.ReplaceAll(f.conf, "PORT", own))
			for i := range f.args {
				f.args[i] = strings.ReplaceAll(f.args[i], "CONF", conf)
			}
			start(t, env, f.program, f.args...)
			forwarder := "127.0.0.1:" + own
			eventually(t, f.program, want(forwarder, "checkout.fluid.internal", "10.0.0.9"))
			forwards(t, forwarder)

			// A name that did not exist, and does.
			late := "late-" + f.program
			eventually(t, "no such name", func() error {
				if got, err := ask(forwarder, late+".fluid.internal"); err == nil || err.Error() != "NXDOMAIN" {
					return fmt.Errorf("got %s, %w", got, err)
				}
				return nil
			})
			if err := command(t, env, filepath.Join(binDir(t), "fluidctl"), "register", late, "--ip", "10.0.0.12").Run(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a new service", want(forwarder, late+".fluid.internal", "10.0.0.12"))
		})
	}
}

func forwards(t *testing.T, server string) {
	t.Helper()
	for _, q := range []struct {
		network, name string
		typ           uint16
		rcode, answer int
		truncated     bool
	}{
		{"udp", "checkout", dns.TypeA, dns.RcodeSuccess, 1, false},
		{"udp", "checkout", dns.TypeAAAA, dns.RcodeSuccess, 0, false},
		{"udp", "_web._tcp", dns.TypeSRV, dns.RcodeSuccess, 2, false},
		{"udp", "nobody", dns.TypeA, dns.RcodeNameError, 0, false},
		{"udp", "big", dns.TypeA, dns.RcodeSuccess, -1, true},
		{"tcp", "big", dns.TypeA, dns.RcodeSuccess, many, false},
	} {
		m := new(dns.Msg).SetQuestion(q.name+".fluid.internal.", q.typ)
		r, _, err := (&dns.Client{Net: q.network}).ExchangeContext(t.Context(), m, server)
		if err != nil {
			t.Errorf("%+v: %v", q, err)
			continue
		}
		if r.Rcode != q.rcode || q.answer >= 0 && len(r.Answer) != q.answer || r.Truncated != q.truncated {
			t.Errorf("%+v: got rcode %d, %d records, truncated %v", q, r.Rcode, len(r.Answer), r.Truncated)
		}
		for _, rr := range append(r.Answer, r.Ns...) {
			if rr.Header().Ttl > 1 {
				t.Errorf("%+v: TTL of %v, want 1 at most", q, rr)
			}
		}
	}
}
