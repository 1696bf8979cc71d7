package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
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

// phase is what the probe saw in one phase.
type phase struct {
	Answers int           `json:"answers"`
	Lost    int           `json:"lost"`
	Wrong   int           `json:"wrong"`   // not true within the last second, or no answer to the question
	Oldest  time.Duration `json:"oldest"`  // ns; how long ago the oldest truth in an answer had ended
	P50     time.Duration `json:"p50"`     // ns
	P99     time.Duration `json:"p99"`     // ns
	Example string        `json:"example"` // of a wrong answer
}

// churnResult compares Fluid's answers without and with changes arriving.
type churnResult struct {
	Wanted  int     `json:"wanted"`  // changes per second
	Changes float64 `json:"changes"` // per second, acknowledged by the agent
	Batches int     `json:"batches"`
	Idle    phase   `json:"idle"`
	Busy    phase   `json:"busy"`
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
	fmt.Fprintf(out, "%.0f changes of an address per second, committed by the agent in %d batches (%d/s wanted). Every answer was checked: right is one\n",
		r.Changes, r.Batches, r.Wanted)
	fmt.Fprintf(out, "that was true within the last %s.\n\n", tolerance)
	fmt.Fprintln(out, "| | answers | lost | wrong | oldest truth ms | p50 µs | p99 µs |\n|---|--:|--:|--:|--:|--:|--:|")
	for _, p := range []struct {
		name string
		phase
	}{{"idle", r.Idle}, {"changes", r.Busy}} {
		fmt.Fprintf(out, "| %s | %d | %d | %d | %.1f | %.0f | %.0f |\n", p.name, p.Answers, p.Lost, p.Wrong,
			float64(p.Oldest)/float64(time.Millisecond), micros(p.P50), micros(p.P99))
	}
	if r.Idle.P99 > 0 {
		fmt.Fprintf(out, "\np99 with changes ÷ idle: %.2f\n", float64(r.Busy.P99)/float64(r.Idle.P99))
	}
}

// churn asks Fluid at a fixed rate, first undisturbed, then while changes arrive
// through the agent, and checks every answer.
func (b *bench) churn(ctx context.Context, s *server) (*churnResult, error) {
	h := newHistory(b.work)
	p := &probe{port: s.port, rate: max(b.opts.rate, 1000), work: b.work, history: h, rng: rand.New(rand.NewPCG(2, 2))}
	r := &churnResult{Wanted: b.opts.churn}
	var err error
	b.logf("churn: %s idle", b.opts.churnFor)
	if r.Idle, err = p.run(ctx, b.opts.churnFor); err != nil {
		return nil, err
	}
	b.logf("churn: %s with %d changes per second", b.opts.churnFor, b.opts.churn)
	changing, stop := context.WithCancel(ctx)
	defer stop()
	type outcome struct {
		changes, batches int
		took             time.Duration
		err              error
	}
	done := make(chan outcome, 1)
	go func() {
		began := time.Now()
		changes, batches, err := b.change(changing, h)
		done <- outcome{changes, batches, time.Since(began), err}
	}()
	r.Busy, err = p.run(ctx, b.opts.churnFor)
	stop()
	o := <-done
	r.Changes, r.Batches = float64(o.changes)/o.took.Seconds(), o.batches
	return r, errors.Join(err, o.err)
}

// change changes addresses at the wanted rate, each time of the next service,
// until ctx ends. A batch that takes long makes the next one larger.
func (b *bench) change(ctx context.Context, h *history) (changes, batches int, err error) {
	const pace = 50 * time.Millisecond
	tick := time.NewTicker(pace)
	defer tick.Stop()
	began := time.Now()
	w := b.work
	for {
		select {
		case <-ctx.Done():
			return changes, batches, nil
		case <-tick.C:
		}
		due := int(time.Since(began).Seconds()*float64(b.opts.churn)) - changes
		due = min(due, batchLimit, w.Services) // a service at most once in a batch
		if due <= 0 {
			continue
		}
		var batch []app
		for k := changes; k < changes+due; k++ {
			s, i, v := k%w.Services, k/w.Services%w.Instances, k/(w.Services*w.Instances)
			batch = append(batch, app{App: w.label(s), ID: instanceID(i), IP: w.address(s, i, v+1).String()})
			h.sending(s, w.address(s, i, v), w.address(s, i, v+1), time.Now())
		}
		body, err := json.Marshal(batch)
		if err != nil {
			return changes, batches, err
		}
		// The end of the phase does not cut a write short: its outcome would be unknown.
		if err := b.postBytes(context.WithoutCancel(ctx), b.agentURL+"/v1/apps", body); err != nil {
			return changes, batches, err
		}
		now := time.Now()
		for k := changes; k < changes+due; k++ {
			h.acknowledged(k%w.Services, now)
		}
		changes, batches = changes+due, batches+1
	}
}
