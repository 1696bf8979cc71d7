// Command coredns is the CoreDNS that build/benchdns measures Fluid against.
//
// It is the CoreDNS of this module's go.mod, so Fluid and its peers run on the
// same server code, with the plugins that hold data in other ways (hosts, file,
// etcd), cache, and constant: the least any plugin can do for an answer.
package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/bufsize"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/etcd"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/multisocket"
	_ "github.com/coredns/coredns/plugin/pprof"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	// Where the fluid plugin stands in Fluid's own build.
	i := slices.Index(dnsserver.Directives, "k8s_external")
	if i < 0 {
		fmt.Fprintln(os.Stderr, "coredns: no k8s_external among the directives of CoreDNS", coremain.CoreVersion)
		os.Exit(1)
	}
	order := slices.Insert(slices.Clone(dnsserver.Directives), i, "constant")
	if err := dnsserver.SetDirectives(order); err != nil {
		fmt.Fprintln(os.Stderr, "coredns:", err)
		os.Exit(1)
	}
	coremain.Run()
}
