package fluid

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// instance makes an instance from a short text: SERVICE ADDRESS[,ADDRESS...]
// and any of port=N, NAME:N, NAME:N/udp, +TAG, weight=N, zone=Z, prio=N,
// ttl=D, host=H, id=I, k=v.
func instance(t testing.TB, text string) record.Entry {
	t.Helper()
	in, err := parseInstance(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return record.Entry{Key: record.InstanceKey(in.Service, in.ID), Value: string(in.Append(nil))}
}

func parseInstance(text string) (record.Instance, error) {
	fields := strings.Fields(text)
	in := record.Instance{Service: fields[0], Weight: record.DefaultWeight}
	for _, f := range fields[1:] {
		key, value, isPair := strings.Cut(f, "=")
		name, port, isPort := strings.Cut(f, ":")
		var n uint16
		switch {
		case strings.HasPrefix(f, "+"):
			in.Tags = append(in.Tags, f[1:])
		case key == "port" || key == "weight" || key == "prio":
			_, _ = fmt.Sscan(value, &n)
			*map[string]*uint16{"port": &in.Port, "weight": &in.Weight, "prio": &in.Priority}[key] = n
		case key == "zone":
			in.Zone = value
		case key == "host":
			in.Host = value
		case key == "id":
			in.ID = value
		case key == "ttl":
			in.TTL, _ = time.ParseDuration(value)
		case isPair:
			in.Meta = append(in.Meta, record.Pair{Key: key, Value: value})
		case isPort && record.IsLabel(name) && !isAddr(f):
			number, proto, _ := strings.Cut(port, "/")
			_, _ = fmt.Sscan(number, &n)
			p := record.Port{Name: name, Number: n}
			if proto == "udp" {
				p.Proto = record.UDP
			}
			in.Ports = append(in.Ports, p)
		default:
			for a := range strings.SplitSeq(f, ",") {
				addr, err := netip.ParseAddr(a)
				if err != nil {
					return in, err
				}
				in.Addrs = append(in.Addrs, addr)
			}
		}
	}
	in.Normalize()
	return in, in.Validate()
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(strings.Split(s, ",")[0])
	return err == nil
}
