package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// corefile returns a Corefile with one server block for the workload's zone on
// 127.0.0.1: the plugins of chain, the same for every server, and the block that
// holds the data.
func corefile(w workload, port int, chain []string, data string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d {\n    bind 127.0.0.1\n", w.Zone, port)
	for _, line := range chain {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	for line := range strings.Lines(data) {
		fmt.Fprintf(&b, "    %s\n", strings.TrimSuffix(line, "\n"))
	}
	b.WriteString("}\n")
	return b.String()
}

// hostsBlock, fileBlock, etcdBlock, cacheBlock, constantBlock and fluidBlock
// return the lines of a Corefile that hold the workload's data.
func hostsBlock(w workload, path string) string {
	return fmt.Sprintf("hosts %s {\n    ttl %d\n    no_reverse\n    reload 0\n}", path, w.TTL)
}

func fileBlock(path string) string {
	return fmt.Sprintf("file %s {\n    reload 0\n}", path)
}

func etcdBlock(endpoint string) string {
	return fmt.Sprintf("etcd {\n    path /skydns\n    endpoint %s\n}", endpoint)
}

// cacheBlock sizes the cache so that all names fit in each of its shards: the
// default of 9984 answers would evict at 10,000 names.
func cacheBlock(w workload) string {
	return fmt.Sprintf("cache {\n    success %d %d\n}\n", 4*w.Services, w.TTL)
}

func constantBlock(w workload) string {
	line := []string{"constant"}
	for _, a := range w.addresses(0) {
		line = append(line, a.String())
	}
	return strings.Join(line, " ")
}

func fluidBlock(w workload, socket string) string {
	return fmt.Sprintf("fluid {\n    agent %s\n    ttl %d\n}", socket, w.TTL)
}

// writeHosts writes the workload in the format of /etc/hosts.
func writeHosts(out io.Writer, w workload) error {
	b := bufio.NewWriter(out)
	for s := range w.Services {
		for _, a := range w.addresses(s) {
			fmt.Fprintf(b, "%s %s\n", a, w.name(s))
		}
	}
	return b.Flush()
}

// writeZone writes the workload as a zone file (RFC 1035 section 5).
func writeZone(out io.Writer, w workload) error {
	b := bufio.NewWriter(out)
	fmt.Fprintf(b, "$ORIGIN %s.\n$TTL %d\n", w.Zone, w.TTL)
	fmt.Fprintf(b, "@ IN SOA ns.dns hostmaster 1 3600 600 86400 5\n@ IN NS ns.dns\nns.dns IN A 127.0.0.1\n")
	for s := range w.Services {
		for _, a := range w.addresses(s) {
			fmt.Fprintf(b, "%s IN A %s\n", w.label(s), a)
		}
	}
	return b.Flush()
}

// knotConfig returns a configuration of Knot DNS: one UDP worker, as CoreDNS
// has one socket, and no other work.
func knotConfig(w workload, port int, dir, zone string) string {
	return fmt.Sprintf(`server:
    rundir: "%[1]s"
    listen: 127.0.0.1@%[2]d
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "%[1]s"
log:
  - target: stderr
    any: warning
zone:
  - domain: %[3]s
    file: "%[4]s"
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
`, dir, port, w.Zone, zone)
}

// nsdConfig returns a configuration of NSD: one server process and no rate
// limit, which Debian's build would otherwise apply.
func nsdConfig(w workload, port int, dir, zone string) string {
	return fmt.Sprintf(`server:
    ip-address: 127.0.0.1@%[2]d
    server-count: 1
    username: ""
    chroot: ""
    zonesdir: "%[1]s"
    database: ""
    pidfile: "%[1]s/nsd.pid"
    xfrdfile: "%[1]s/xfrd.state"
    xfrdir: "%[1]s"
    zonelistfile: "%[1]s/zone.list"
    rrl-ratelimit: 0
    round-robin: no
remote-control:
    control-enable: no
zone:
    name: "%[3]s"
    zonefile: "%[4]s"
`, dir, port, w.Zone, zone)
}

// etcdTxn is a transaction of etcd's JSON gateway (POST /v3/kv/txn).
type etcdTxn struct {
	Success []etcdOp `json:"success"`
}

type etcdOp struct {
	RequestPut etcdPut `json:"request_put"`
}

type etcdPut struct {
	Key   string `json:"key"`   // base64
	Value string `json:"value"` // base64
}

// etcdTxns returns the workload in the layout of SkyDNS, which CoreDNS's etcd
// plugin reads, in transactions of at most size puts.
func etcdTxns(w workload, size int) []etcdTxn {
	labels := strings.Split(w.Zone, ".")
	slices.Reverse(labels)
	path := "/skydns/" + strings.Join(labels, "/")
	var all []etcdTxn
	var txn etcdTxn
	for s := range w.Services {
		for i, a := range w.addresses(s) {
			key := fmt.Sprintf("%s/%s/i%d", path, w.label(s), i)
			value := fmt.Sprintf(`{"host":"%s","ttl":%d}`, a, w.TTL)
			txn.Success = append(txn.Success, etcdOp{etcdPut{
				Key:   base64.StdEncoding.EncodeToString([]byte(key)),
				Value: base64.StdEncoding.EncodeToString([]byte(value)),
			}})
			if len(txn.Success) == size {
				all, txn = append(all, txn), etcdTxn{}
			}
		}
	}
	if len(txn.Success) > 0 {
		all = append(all, txn)
	}
	return all
}

// app is one registration of POST /v1/apps.
type app struct {
	App string `json:"appId"`
	ID  string `json:"id"`
	IP  string `json:"ip"`
}

// instanceID names instance i of a service; it stays while the address changes.
func instanceID(i int) string { return fmt.Sprintf("i%d", i) }

// registrations returns the workload as bodies of POST /v1/apps, each an array
// of at most size registrations.
func registrations(w workload, size int) ([][]byte, error) {
	var all [][]byte
	var batch []app
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		body, err := json.Marshal(batch)
		all, batch = append(all, body), nil
		return err
	}
	for s := range w.Services {
		for i, a := range w.addresses(s) {
			batch = append(batch, app{App: w.label(s), ID: instanceID(i), IP: a.String()})
			if len(batch) == size {
				if err := flush(); err != nil {
					return nil, err
				}
			}
		}
	}
	return all, flush()
}
