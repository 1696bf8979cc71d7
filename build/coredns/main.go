// Command coredns is CoreDNS with the fluid plugin built in.
//
// By default it holds the plugins of plugins.go: what an authoritative or
// forwarding server on a host needs, without cloud SDKs. Built with -tags full
// it holds every plugin of the CoreDNS source tree. The flags are those of
// CoreDNS; -version names the versions of CoreDNS and of Fluid.
package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/fluid-sd/fluid/plugin"
	"github.com/fluid-sd/fluid/plugin/record"
)

// directives returns CoreDNS's order of plugins with fluid in it.
//
// fluid comes directly before k8s_external: after everything that rewrites,
// filters, caches, signs or transfers its answers and after hosts, where an
// operator can pin a name, and before the other sources of data, which
// fallthrough can then reach. The list is derived from CoreDNS's own, because
// a copy of it would miss the reorderings that fix vulnerabilities
// (CVE-2026-26017 was one).
func directives(core []string) ([]string, error) {
	i := slices.Index(core, "k8s_external")
	if i < 0 {
		return nil, fmt.Errorf("no k8s_external among the directives of CoreDNS %s", coremain.CoreVersion)
	}
	return slices.Insert(slices.Clone(core), i, "fluid"), nil
}

func main() {
	order, err := directives(dnsserver.Directives)
	if err == nil {
		err = dnsserver.SetDirectives(order)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "coredns:", err)
		os.Exit(1)
	}
	caddy.AppVersion = coremain.CoreVersion + "+fluid-" + record.Version
	coremain.Run()
}
