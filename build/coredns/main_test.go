package main

import (
	"slices"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
)

func TestDirectives(t *testing.T) {
	got, err := directives(dnsserver.Directives)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.Index(got, "fluid")
	if at < 0 || got[at+1] != "k8s_external" {
		t.Fatalf("fluid is not directly before k8s_external in %q", got)
	}
	for _, name := range []string{"prometheus", "errors", "loadbalance", "rewrite", "acl", "cache", "dnssec", "minimal", "transfer", "hosts"} {
		if i := slices.Index(got, name); i < 0 || i > at {
			t.Errorf("%s is at %d, want it before fluid at %d", name, i, at)
		}
	}
	for _, name := range []string{"kubernetes", "file", "auto", "secondary", "etcd", "loop", "forward"} {
		if i := slices.Index(got, name); i < at {
			t.Errorf("%s is at %d, want it after fluid at %d", name, i, at)
		}
	}
	if slices.Contains(dnsserver.Directives, "fluid") {
		t.Error("directives changed CoreDNS's own list")
	}
}

func TestDirectivesWithoutAnchor(t *testing.T) {
	if _, err := directives([]string{"errors", "file"}); err == nil {
		t.Error("got no error for a CoreDNS without k8s_external")
	}
}
