package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"
)

// tolerance is how old the truth in an answer may be.
const tolerance = time.Second

// version is what was true of one service for some time.
type version struct {
	addresses []netip.Addr // sorted
	from      time.Time    // before the change was sent: it cannot be seen earlier
	until     time.Time    // after the next change was acknowledged; zero: still true
}

// history knows what was true of every service, and when. It is safe for
// concurrent use.
type history struct {
	work workload
	mu   sync.Mutex
	past map[int][]version // by service, the oldest first; a service that never changed is absent
}

func newHistory(w workload) *history { return &history{work: w, past: map[int][]version{}} }

// of returns the versions of service s. The caller holds mu.
func (h *history) of(s int) []version {
	if v, ok := h.past[s]; ok {
		return v
	}
	first := h.work.addresses(s)
	slices.SortFunc(first, netip.Addr.Compare)
	return []version{{addresses: first}}
}

// sending notes that a change of service s is about to be sent, after which old
// is replaced by new.
func (h *history) sending(s int, old, new netip.Addr, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.of(s)
	next := slices.Clone(all[len(all)-1].addresses)
	next[slices.Index(next, old)] = new
	slices.SortFunc(next, netip.Addr.Compare)
	h.past[s] = append(all, version{addresses: next, from: now})
}

// acknowledged notes that the last change of service s is done.
func (h *history) acknowledged(s int, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.past[s]
	all[len(all)-2].until = now
}

// check judges an answer for service s that arrived now: its age is how long ago
// it stopped being true, 0 for the truth. It is an error if it was not true within
// the last second.
func (h *history) check(s int, got []netip.Addr, now time.Time) (age time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.of(s)
	for _, v := range slices.Backward(all) {
		if v.from.After(now) || !slices.Equal(v.addresses, got) {
			continue
		}
		if v.until.IsZero() {
			return 0, nil
		}
		age = max(0, now.Sub(v.until))
		if age <= tolerance {
			return age, nil
		}
		return age, fmt.Errorf("%s: %v stopped being true %s ago", h.work.name(s), got, age)
	}
	return 0, fmt.Errorf("%s: %v was never true; now it is %v", h.work.name(s), got, all[len(all)-1].addresses)
}

// phase is what the probe saw in one phase, or in several windows of it.
type phase struct {
	Answers int           `json:"answers"`
	Lost    int           `json:"lost"`
	Wrong   int           `json:"wrong"`   // not true within the last second, or no answer to the question
	Oldest  time.Duration `json:"oldest"`  // ns; how long ago the oldest truth in an answer had ended
	P50     time.Duration `json:"p50"`     // ns, of several windows the median
	P99     time.Duration `json:"p99"`     // ns, likewise
	Example string        `json:"example"` // of a wrong answer
}

// together returns what was seen in all windows.
func together(windows []phase) phase {
	var sum phase
	var p50, p99 []float64
	for _, w := range windows {
		sum.Answers, sum.Lost, sum.Wrong = sum.Answers+w.Answers, sum.Lost+w.Lost, sum.Wrong+w.Wrong
		sum.Oldest, sum.Example = max(sum.Oldest, w.Oldest), cmp.Or(sum.Example, w.Example)
		p50, p99 = append(p50, float64(w.P50)), append(p99, float64(w.P99))
	}
	if len(windows) > 0 {
		sum.P50, sum.P99 = time.Duration(median(p50)), time.Duration(median(p99))
	}
	return sum
}

// churnResult compares Fluid's answers without and with changes arriving.
type churnResult struct {
	Wanted  int     `json:"wanted"`  // changes per second
	Changes float64 `json:"changes"` // per second, acknowledged by the agent
	Batches int     `json:"batches"`
	Windows int     `json:"windows"` // of each kind
	Urgent  bool    `json:"urgent"`  // whether server and client went before all other processes
	Idle    phase   `json:"idle"`
	Busy    phase   `json:"busy"`
	// The 99th percentile of the latency with changes, divided by that of the
	// window without before: the median, the least and the greatest.
	Ratio     float64 `json:"ratio"`
	RatioLow  float64 `json:"ratioLow"`
	RatioHigh float64 `json:"ratioHigh"`
}

// compare fills in what follows from the windows.
func (r *churnResult) compare(idle, busy []phase) {
	r.Windows, r.Idle, r.Busy = len(busy), together(idle), together(busy)
	var ratios []float64
	for i := range busy {
		if idle[i].P99 > 0 {
			ratios = append(ratios, float64(busy[i].P99)/float64(idle[i].P99))
		}
	}
	if len(ratios) > 0 {
		r.Ratio, r.RatioLow, r.RatioHigh = median(ratios), slices.Min(ratios), slices.Max(ratios)
	}
}

// err is an error if any answer was wrong.
func (r *churnResult) err() error {
	if n := r.Idle.Wrong + r.Busy.Wrong; n > 0 {
		return fmt.Errorf("churn: %d of %d answers were wrong: %s%s", n, r.Idle.Answers+r.Busy.Answers, r.Idle.Example, r.Busy.Example)
	}
	return nil
}

func (r *churnResult) markdown(out io.Writer) {
	fmt.Fprintf(out, "\n## Fluid while changes arrive\n\n")
	fmt.Fprintf(out, "%.0f changes of an address per second, committed by the agent in %d batches (%d/s wanted), in windows of %s; before each one\n",
		r.Changes, r.Batches, r.Wanted, window)
	fmt.Fprintf(out, "without changes. A latency ends when the answer is in the client's socket. ")
	if r.Urgent {
		fmt.Fprintf(out, "Server and client went before all other processes\n(SCHED_FIFO), the agent did not. ")
	}
	fmt.Fprintf(out, "Every answer was checked: right is one that was true within the last %s.\n\n", tolerance)
	fmt.Fprintln(out, "| | windows | answers | lost | wrong | oldest truth ms | p50 µs | p99 µs |\n|---|--:|--:|--:|--:|--:|--:|--:|")
	for _, p := range []struct {
		name string
		phase
	}{{"idle", r.Idle}, {"changes", r.Busy}} {
		fmt.Fprintf(out, "| %s | %d | %d | %d | %d | %.1f | %.0f | %.0f |\n", p.name, r.Windows, p.Answers, p.Lost, p.Wrong,
			float64(p.Oldest)/float64(time.Millisecond), micros(p.P50), micros(p.P99))
	}
	if r.Ratio > 0 {
		fmt.Fprintf(out, "\np99 with changes ÷ idle, median of the pairs of windows: %.2f (%.2f–%.2f)\n", r.Ratio, r.RatioLow, r.RatioHigh)
	}
}

const (
	// window is how long Fluid is asked without changes, then with. A machine
	// that is busy with other things for a while is so in both.
	window = time.Second
	// settle is how long what a window began is left to end before the next.
	settle = 100 * time.Millisecond
)

// churn asks Fluid at a fixed rate, in turns undisturbed and while changes
// arrive through the agent, and checks every answer.
func (b *bench) churn(ctx context.Context, s *server) (*churnResult, error) {
	c := &changer{bench: b, history: newHistory(b.work)}
	p := &probe{port: s.port, rate: max(b.opts.rate, 1000), work: b.work, history: c.history, rng: rand.New(rand.NewPCG(2, 2))}
	length := min(window, b.opts.churnFor)
	b.logf("churn: %s, in turns without and with %d changes per second", 2*b.opts.churnFor, b.opts.churn)
	var idle, busy []phase
	for range max(1, b.opts.churnFor/length) {
		w, err := p.run(ctx, length)
		if err != nil {
			return nil, err
		}
		idle = append(idle, w)
		changing, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- c.run(changing) }()
		w, err = p.run(ctx, length)
		stop()
		if err = errors.Join(err, <-done); err != nil {
			return nil, err
		}
		busy = append(busy, w)
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r := &churnResult{Wanted: b.opts.churn, Changes: float64(c.changes) / c.took.Seconds(), Batches: c.batches}
	r.compare(idle, busy)
	return r, nil
}

// urgent lets processes go before all others, so that latencies are theirs and
// not those of a machine with other work, and reports whether it could.
func (b *bench) urgent(ctx context.Context, pids ...int) bool {
	for _, pid := range pids {
		text, err := exec.CommandContext(ctx, "chrt", "-a", "-f", "-p", "10", strconv.Itoa(pid)).CombinedOutput()
		if err != nil {
			b.logf("churn: server and client are processes like others: %v: %s", err, tail(text, 1))
			return false
		}
	}
	return true
}

// changer changes addresses through the agent.
type changer struct {
	*bench
	history *history
	changes int // so far
	batches int
	took    time.Duration
}

// run changes addresses at the wanted rate, each time of the next service,
// until ctx ends. A batch that takes long makes the next one larger.
func (c *changer) run(ctx context.Context) error {
	const pace = 50 * time.Millisecond
	tick := time.NewTicker(pace)
	defer tick.Stop()
	began, before, w := time.Now(), c.changes, c.work
	defer func() { c.took += time.Since(began) }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		due := int(time.Since(began).Seconds()*float64(c.opts.churn)) - (c.changes - before)
		due = min(due, batchLimit, w.Services) // a service at most once in a batch
		if due <= 0 {
			continue
		}
		var batch []app
		for k := c.changes; k < c.changes+due; k++ {
			s, i, v := k%w.Services, k/w.Services%w.Instances, k/(w.Services*w.Instances)
			batch = append(batch, app{App: w.label(s), ID: instanceID(i), IP: w.address(s, i, v+1).String()})
			c.history.sending(s, w.address(s, i, v), w.address(s, i, v+1), time.Now())
		}
		body, err := json.Marshal(batch)
		if err != nil {
			return err
		}
		// The end of the window does not cut a write short: its outcome would be unknown.
		if err := c.postBytes(context.WithoutCancel(ctx), c.agentURL+"/v1/apps", body); err != nil {
			return err
		}
		now := time.Now()
		for k := c.changes; k < c.changes+due; k++ {
			c.history.acknowledged(k%w.Services, now)
		}
		c.changes, c.batches = c.changes+due, c.batches+1
	}
}
