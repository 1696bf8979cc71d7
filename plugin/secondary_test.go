package fluid

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// secondaries are the servers that people transfer zones to, as Debian
// packages them: their configuration, with DIR, PORT and PRIMARY, and how they
// are started in the foreground.
var secondaries = []struct {
	program, config string
	args            []string
}{
	{"nsd", `server:
  ip-address: 127.0.0.1@PORT
  username: ""
  zonesdir: DIR
  pidfile: DIR/pid
  xfrdfile: DIR/xfrd
  zonelistfile: DIR/zones
  xfrdir: DIR
  server-count: 1
remote-control:
  control-enable: no
zone:
  name: fluid.internal
  zonefile: zone
  request-xfr: AXFR 127.0.0.1@PRIMARY NOKEY
  allow-notify: 127.0.0.1 NOKEY
`, []string{"-d", "-c"}},
	{"knotd", `server:
  listen: 127.0.0.1@PORT
  rundir: DIR
database:
  storage: DIR
remote:
  - id: primary
    address: 127.0.0.1@PRIMARY
acl:
  - id: notify
    address: 127.0.0.1
    action: notify
zone:
  - domain: fluid.internal
    storage: DIR
    master: primary
    acl: notify
`, []string{"-c"}},
	{"named", `options {
  directory "DIR";
  pid-file "DIR/pid";
  session-keyfile "DIR/key";
  listen-on port PORT { 127.0.0.1; };
  listen-on-v6 { none; };
  recursion no;
  dnssec-validation no;
};
controls { };
zone "fluid.internal" {
  type secondary;
  primaries { 127.0.0.1 port PRIMARY; };
  allow-notify { 127.0.0.1; };
  file "zone";
};
`, []string{"-g", "-c"}},
}

// TestSecondaries transfers the zone to NSD, Knot and BIND, where they are
// installed, and keeps them in step through a thousand changes.
func TestSecondaries(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other servers")
	}
	a := newAgent(t)
	fill(t, a)
	primary := freePort(t)
	addrs := map[string]string{}
	var to []string
	for _, s := range secondaries {
		if _, err := exec.LookPath(s.program); err != nil {
			t.Logf("left out: %v", err)
			continue
		}
		addrs[s.program] = fmt.Sprintf("127.0.0.1:%d", freePort(t))
		to = append(to, addrs[s.program])
	}
	if len(addrs) == 0 {
		t.Skip("none of them is installed")
	}
	s := serve(t, fmt.Sprintf("fluid.internal:%d {\n bind 127.0.0.1\n fluid {\n agent AGENT\n }\n transfer {\n to * %s\n }\n}\n", primary, strings.Join(to, " ")), a)
	s.caughtUp()
	for _, sec := range secondaries {
		if addr, ok := addrs[sec.program]; ok {
			dir := t.TempDir()
			_, port, _ := strings.Cut(addr, ":")
			r := strings.NewReplacer("DIR", dir, "PORT", port, "PRIMARY", fmt.Sprint(primary))
			start(t, sec.program, filepath.Join(dir, "conf"), r.Replace(sec.config), sec.args)
		}
	}
	inStep := func(when string, names ...string) {
		t.Helper()
		for program, addr := range addrs {
			eventually(t, program+" in step "+when, func() bool {
				m, err := exchange(addr, "udp", "fluid.internal.", dns.TypeSOA)
				return err == nil && len(m.Answer) == 1 && m.Answer[0].(*dns.SOA).Serial == leases.running().serial.Load() && settled()
			})
			for _, name := range names {
				for _, typ := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypePTR, dns.TypeTXT, dns.TypeHTTPS, dns.TypeCNAME} {
					// NSD's old processes answer for a moment after its new ones.
					eventually(t, fmt.Sprintf("%s answers %s %s like its primary %s", program, name, dns.TypeToString[typ], when), func() bool {
						want := s.ask(name, typ, edns(4096, false))
						got, err := exchange(addr, "udp", name, typ, edns(4096, false))
						return err == nil && got.Rcode == want.Rcode && slices.Equal(lines(got.Answer), lines(want.Answer))
					})
				}
			}
		}
	}
	const z = "fluid.internal."
	names := []string{
		"checkout." + z, "web." + z, "eu.web.service." + z, "_web._tcp." + z, "10-0-1-1-8080.web." + z, "10-0-1-1-8080._web._tcp." + z,
		"_services._dns-sd._udp." + z, "_8443._https.web." + z, "db." + z, "nobody." + z, "service." + z,
	}
	inStep("at first", names...)
	for i := range 1000 {
		a.commit(instance(t, fmt.Sprintf("moving 10.4.%d.%d id=one port=%d", i/250, i%250+1, 1000+i)))
		if i%250 == 0 {
			s.caughtUp()
		}
	}
	s.caughtUp()
	inStep("after a thousand changes", append(names, "moving."+z, "_moving._tcp."+z)...)
	a.commit(removed(instance(t, "moving 10.4.3.250 id=one port=1999")))
	s.caughtUp()
	inStep("after the removal", "moving."+z, "one.moving."+z)
}

// settled reports whether the serial stands for the present data.
func settled() bool {
	e := leases.running()
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.dirty
}

// start runs a server until the end of the test.
func start(t *testing.T, program, path, config string, args []string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, append(args, path)...)
	log, err := os.Create(path + ".log")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it ends with the signal
		_ = log.Close()
		if data, err := os.ReadFile(path + ".log"); err == nil && t.Failed() {
			t.Logf("%s:\n%s", program, data)
		}
	})
}
