package agenttest

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"
)

// The bounds of issue 3 for how long no write succeeds after the leader was
// killed, and how often that is measured.
const (
	leaderKills   = 30
	wantMedian    = 3 * time.Second
	wantWorst     = 6 * time.Second
	betweenWrites = 10 * time.Millisecond
)

// BenchmarkLeaderKilled kills the leader with SIGKILL again and again, at
// default timings, while a client registers through the others. It measures
// from the kill until a write that began after it is acknowledged. All along,
// every DNS server is asked 200 times a second and must answer rightly.
func BenchmarkLeaderKilled(b *testing.B) {
	for b.Loop() {
		w := startWatch(b, newCluster(b))
		var gaps latency
		for i := range leaderKills {
			leader, rest := w.leader()
			leader.agent.kill()
			began := time.Now()
			rest[i%len(rest)].writeOnceItCan(fmt.Sprintf("10.9.%d.%d", i>>8, i&255), began)
			gaps = append(gaps, time.Since(began))
			leader.agent = leader.launchAgent()
			leader.awaitURL(leader.agent, "http://"+leader.http+"/readyz")
			w.writes(1, leader) // it is back in the cluster
			w.reached(w.hosts...)
		}
		w.finish()
		slices.Sort(gaps)
		b.Logf("no write for: %v", gaps)
		b.ReportMetric(gaps.at(.5).Seconds(), "median-s")
		b.ReportMetric(gaps[len(gaps)-1].Seconds(), "worst-s")
		if gaps.at(.5) > wantMedian || gaps[len(gaps)-1] > wantWorst {
			b.Errorf("no write for: got median %v and worst %v, want at most %v and %v", gaps.at(.5), gaps[len(gaps)-1], wantMedian, wantWorst)
		}
	}
}

// writeOnceItCan asks for a write until one is acknowledged.
func (h *host) writeOnceItCan(ip string, began time.Time) {
	h.t.Helper()
	tick := time.NewTicker(betweenWrites)
	defer tick.Stop()
	for ; time.Since(began) < patience; <-tick.C {
		code, _ := h.call(http.MethodPost, "/v1/apps?timeout=1s", fmt.Sprintf(`{"appId":"outage","id":"only","ip":%q}`, ip))
		if code == http.StatusCreated || code == http.StatusOK {
			return
		}
	}
	h.t.Fatalf("no write within %v", patience)
}
