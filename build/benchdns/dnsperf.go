package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// dnsperfResult is what one run of dnsperf reports.
type dnsperfResult struct {
	Sent      int64            // queries
	Completed int64            // queries that were answered in time
	Lost      int64            // queries without an answer
	Codes     map[string]int64 // answers by response code
	Response  int              // mean size of an answer, bytes
	QPS       float64
	Latencies []time.Duration // of each answer, if dnsperf ran with -v
}

// parseDnsperf reads the output of dnsperf 2.x. It is an error if the statistics
// are not in it.
func parseDnsperf(in io.Reader) (dnsperfResult, error) {
	r := dnsperfResult{Codes: map[string]int64{}}
	found := map[string]bool{}
	scan := bufio.NewScanner(in)
	for scan.Scan() {
		line := scan.Text()
		if rest, ok := strings.CutPrefix(line, "> "); ok {
			// > NOERROR svc1.fluid.internal A 0.000118
			fields := strings.Fields(rest)
			if len(fields) != 4 {
				continue // "> T name type": timed out
			}
			seconds, err := strconv.ParseFloat(fields[3], 64)
			if err != nil {
				return r, fmt.Errorf("dnsperf: %q: %w", line, err)
			}
			r.Latencies = append(r.Latencies, time.Duration(seconds*float64(time.Second)))
			continue
		}
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		var err error
		switch key {
		case "Queries sent":
			r.Sent, err = leadingInt(value)
		case "Queries completed":
			r.Completed, err = leadingInt(value)
		case "Queries lost":
			r.Lost, err = leadingInt(value)
		case "Queries per second":
			r.QPS, err = strconv.ParseFloat(strings.TrimSpace(value), 64)
		case "Average packet size":
			_, response, _ := strings.Cut(value, "response ")
			r.Response, err = strconv.Atoi(strings.TrimSpace(response))
		case "Response codes":
			err = parseCodes(value, r.Codes)
		default:
			continue
		}
		if err != nil {
			return r, fmt.Errorf("dnsperf: %q: %w", line, err)
		}
		found[key] = true
	}
	if err := scan.Err(); err != nil {
		return r, fmt.Errorf("dnsperf: %w", err)
	}
	for _, key := range []string{"Queries sent", "Queries completed", "Queries lost", "Queries per second"} {
		if !found[key] {
			return r, fmt.Errorf("dnsperf: no %q in its output", key)
		}
	}
	return r, nil
}

// parseCodes reads "NOERROR 117394 (50.00%), NXDOMAIN 117394 (50.00%)".
func parseCodes(list string, codes map[string]int64) error {
	if strings.TrimSpace(list) == "" {
		return nil
	}
	for item := range strings.SplitSeq(list, ",") {
		name, count, ok := strings.Cut(strings.TrimSpace(item), " ")
		if !ok {
			return fmt.Errorf("no count in %q", item)
		}
		n, err := leadingInt(count)
		if err != nil {
			return err
		}
		codes[name] += n
	}
	return nil
}

// leadingInt reads the number before the first space: "10 (100.00%)" is 10.
func leadingInt(s string) (int64, error) {
	first, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	return strconv.ParseInt(first, 10, 64)
}

// load is one run of dnsperf.
type load struct {
	port    int
	file    string        // the queries
	limit   time.Duration // 0: until the file ends
	rate    int           // queries per second; 0: as fast as answers come
	verbose bool          // measure the latency of each answer
}

// outstanding is how many queries dnsperf keeps under way where no rate is set:
// enough that the server never waits for the client.
const outstanding = "100"

// dnsperf runs l from the processors cpus, EDNS on (as every resolver asks),
// and waits for its end. An answer other than NOERROR is an error.
func dnsperf(ctx context.Context, cpus string, l load) (dnsperfResult, error) {
	args := []string{
		"-c", cpus, "dnsperf", "-s", "127.0.0.1", "-p", strconv.Itoa(l.port), "-d", l.file,
		"-e", "-c", "10", "-T", "1", "-q", outstanding, "-t", "2",
	}
	if l.limit > 0 {
		args = append(args, "-l", strconv.FormatFloat(l.limit.Seconds(), 'f', -1, 64))
	} else {
		args = append(args, "-n", "1")
	}
	if l.rate > 0 {
		args = append(args, "-Q", strconv.Itoa(l.rate))
	}
	if l.verbose {
		args = append(args, "-v")
	}
	cmd := exec.CommandContext(ctx, "taskset", args...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return dnsperfResult{}, ctx.Err()
	}
	if err != nil {
		return dnsperfResult{}, fmt.Errorf("dnsperf: %w: %s", err, tail(out, 5))
	}
	r, err := parseDnsperf(bytes.NewReader(out))
	if err != nil {
		return r, err
	}
	if r.Completed == 0 {
		return r, fmt.Errorf("dnsperf: no query of %d was answered", r.Sent)
	}
	for code, n := range r.Codes {
		if code != "NOERROR" {
			return r, fmt.Errorf("dnsperf: %d of %d answers were %s", n, r.Completed, code)
		}
	}
	return r, nil
}

// tail returns the last n lines of text.
func tail(text []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
