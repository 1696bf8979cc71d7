package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const dnsperfOutput = `DNS Performance Testing Tool
Version 2.10.0

[Status] Command line: dnsperf -s 127.0.0.1 -p 15399 -d q -e -l 1 -q 100 -Q 5 -v
[Status] Sending queries (to 127.0.0.1:15399)
[Status] Started at: Mon Nov 23 11:01:54 2026
[Status] Stopping after 1.000000 seconds
> NOERROR svc1.fluid.internal A 0.000118
> NXDOMAIN svc2.fluid.internal A 0.000161
> T svc1.fluid.internal A
> NOERROR svc1.fluid.internal A 0.000203
[Status] Testing complete (time limit)

Statistics:

  Queries sent:         4
  Queries completed:    3 (75.00%)
  Queries lost:         1 (25.00%)

  Response codes:       NOERROR 2 (66.67%), NXDOMAIN 1 (33.33%)
  Average packet size:  request 48, response 120
  Run time (s):         1.000319
  Queries per second:   4.998406

  Average Latency (s):  0.000156 (min 0.000118, max 0.000203)
  Latency StdDev (s):   0.000035
`

func TestParseDnsperf(t *testing.T) {
	got, err := parseDnsperf(strings.NewReader(dnsperfOutput))
	if err != nil {
		t.Fatal(err)
	}
	if got.Sent != 4 || got.Completed != 3 || got.Lost != 1 || got.Response != 120 || got.QPS != 4.998406 {
		t.Errorf("got %+v", got)
	}
	if want := map[string]int64{"NOERROR": 2, "NXDOMAIN": 1}; !maps.Equal(got.Codes, want) {
		t.Errorf("codes: got %v, want %v", got.Codes, want)
	}
	want := []time.Duration{118 * time.Microsecond, 161 * time.Microsecond, 203 * time.Microsecond}
	if !slices.Equal(got.Latencies, want) {
		t.Errorf("latencies: got %v, want %v", got.Latencies, want)
	}
}

func TestParseDnsperfRefuses(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"no statistics", dnsperfOutput, "Error: unable to open file q\n", `no "Queries sent"`},
		{"cut short", "  Queries per second:   4.998406\n", "", `no "Queries per second"`},
		{"a count that is none", "sent:         4", "sent:         many", "many"},
		{"codes without counts", "NOERROR 2 (66.67%)", "NOERROR", `no count`},
		{"a latency that is none", "A 0.000118", "A soon", "soon"},
		{"a size that is none", "response 120", "response big", "big"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseDnsperf(strings.NewReader(strings.Replace(dnsperfOutput, test.old, test.new, 1)))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error about %q", err, test.want)
			}
		})
	}
}

// A server that answers nothing has no response codes.
func TestParseDnsperfNothingAnswered(t *testing.T) {
	out := "  Queries sent:  9\n  Queries completed:  0 (0.00%)\n  Queries lost:  9 (100.00%)\n  Response codes:  \n  Queries per second:  0.000000\n"
	got, err := parseDnsperf(strings.NewReader(out))
	if err != nil || got.Lost != 9 || len(got.Codes) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}
