package main

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update rewrites it); got:\n%s", name, got)
	}
}

var small = workload{Zone: "fluid.internal", Services: 2, Instances: 3, TTL: 60}

func TestConfigs(t *testing.T) {
	chain := []string{"bufsize 1232", "errors"}
	write := func(f func(*strings.Builder) error) string {
		var b strings.Builder
		if err := f(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	tests := []struct{ name, got string }{
		{"hosts.Corefile", corefile(small, 5300, chain, hostsBlock(small, "/d/hosts"))},
		{"file.Corefile", corefile(small, 5300, chain, fileBlock("/d/zone"))},
		{"file-cache.Corefile", corefile(small, 5300, nil, cacheBlock(small)+fileBlock("/d/zone"))},
		{"etcd.Corefile", corefile(small, 5300, chain, etcdBlock("http://127.0.0.1:2379"))},
		{"constant.Corefile", corefile(small, 5300, chain, constantBlock(small))},
		{"fluid.Corefile", corefile(small, 5300, chain, fluidBlock(small, "/d/agent.sock"))},
		{"hosts", write(func(b *strings.Builder) error { return writeHosts(b, small) })},
		{"zone", write(func(b *strings.Builder) error { return writeZone(b, small) })},
		{"knot.conf", knotConfig(small, 5300, "/d/knot", "/d/zone")},
		{"nsd.conf", nsdConfig(small, 5300, "/d/nsd", "/d/zone")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { golden(t, test.name, test.got) })
	}
}

func TestZoneParses(t *testing.T) {
	var b strings.Builder
	if err := writeZone(&b, small); err != nil {
		t.Fatal(err)
	}
	parser := dns.NewZoneParser(strings.NewReader(b.String()), "", "zone")
	found := map[string]int{}
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		if a, ok := rr.(*dns.A); ok && rr.Header().Ttl == 60 {
			found[a.Hdr.Name+a.A.String()]++
		}
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	for s := range small.Services {
		for _, a := range small.addresses(s) {
			if found[small.name(s)+"."+a.String()] != 1 {
				t.Errorf("%s %v is not in the zone once: %v", small.name(s), a, found)
			}
		}
	}
}

func TestEtcdTxns(t *testing.T) {
	txns := etcdTxns(small, 4)
	if len(txns) != 2 || len(txns[0].Success) != 4 || len(txns[1].Success) != 2 {
		t.Fatalf("got %+v, want 4 and 2 puts", txns)
	}
	last := txns[1].Success[1].RequestPut
	key, _ := base64.StdEncoding.DecodeString(last.Key)
	value, _ := base64.StdEncoding.DecodeString(last.Value)
	if got, want := fmt.Sprintf("%s %s", key, value), `/skydns/internal/fluid/svc00001/i2 {"host":"10.0.1.5","ttl":60}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRegistrations(t *testing.T) {
	bodies, err := registrations(small, 4)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	var all []app
	for _, body := range bodies {
		var batch []app
		if err := json.Unmarshal(body, &batch); err != nil {
			t.Fatal(err)
		}
		sizes, all = append(sizes, len(batch)), append(all, batch...)
	}
	if fmt.Sprint(sizes) != "[4 2]" {
		t.Errorf("batches: got %v, want [4 2]", sizes)
	}
	if got, want := all[5], (app{App: "svc00001", ID: "i2", IP: "10.0.1.5"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
