package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/fluid-sd/fluid/agent/api"
)

const (
	clientTimeout = 10 * time.Second      // longer than an agent tries by itself
	maxThink      = 60 * time.Millisecond // between two operations of one client
	keysPerRound  = 6
	instanceID    = "i"
	checkTimeout  = 2 * time.Minute
)

// workload is the clients and what they saw.
type workload struct {
	c       *cluster
	clients int
	seed    uint64
	began   time.Time
	round   atomic.Int64
	values  atomic.Uint32
	acked   atomic.Int64 // when the last write was acknowledged, in ns since began

	mu       sync.Mutex // guards what follows
	history  []porcupine.Operation
	placed   []string // ids of overlays, of all rounds
	lately   []string // those of this round
	refused  int      // certainly not done, or no answer to a read
	unknown  int
	gap      time.Duration              // longest between two acknowledged writes, in this round
	gaps     map[string][]time.Duration // the same, by fault
	failures []string                   // answers that no client should ever get
}

func newWorkload(c *cluster, o options) *workload {
	return &workload{c: c, clients: o.clients, seed: o.seed, began: time.Now(), gaps: map[string][]time.Duration{}}
}

func (w *workload) now() int64 { return int64(time.Since(w.began)) }

// nextRound lets the clients go on with fresh keys, so that the operations of
// one key, with the unknown ones among them, stay few enough to judge.
func (w *workload) nextRound() {
	w.round.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gap, w.lately = 0, nil
}

// endRound notes and returns the longest time between two acknowledged writes
// in this round, which was that of a fault.
func (w *workload) endRound(fault string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gaps[fault] = append(w.gaps[fault], w.gap)
	return w.gap
}

// key names the service i of a round.
func key(round int64, i int) string { return fmt.Sprintf("r%d-k%d", round, i) }

// during runs clients while f does.
func (w *workload) during(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.acked.Store(w.now())
	var wg sync.WaitGroup
	for id := range w.clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(w.seed, uint64(id)+2))
			// Operations are finished, not cut off: ctx only ends the loop.
			for pause(ctx, time.Duration(rng.Int64N(int64(maxThink)))) {
				w.one(context.WithoutCancel(ctx), id, rng)
			}
		})
	}
	err := f(ctx)
	cancel()
	wg.Wait()
	return err
}

// one does one random operation at one random agent.
func (w *workload) one(ctx context.Context, client int, rng *rand.Rand) {
	in := w.choose(rng)
	a := w.c.agents[rng.IntN(len(w.c.agents))]
	idempotency := ""
	if in.kind != get && rng.IntN(2) == 0 {
		idempotency = fmt.Sprintf("%d-%d-%d", client, w.now(), rng.Uint64())
	}
	// Some are patient and are answered by an agent that was stopped; the others
	// are back soon, to write and to read elsewhere meanwhile.
	ctx, cancel := context.WithTimeout(ctx, [...]time.Duration{500 * time.Millisecond, 2 * time.Second, clientTimeout}[rng.IntN(3)])
	defer cancel()
	call := w.now()
	out, done := w.ask(ctx, a, &in, idempotency)
	// Who has a key may ask again, anywhere, and the write is done once.
	for try := 0; idempotency != "" && (out.unknown || !done) && try < 3; try++ {
		if again, ok := w.ask(ctx, w.c.agents[rng.IntN(len(w.c.agents))], &in, idempotency); ok {
			out, done = again, true
		}
	}
	if in.key == "" { // the id of an overlay that may have been placed is not known
		done = false
	}
	w.record(client, in, out, done, call)
}

// ask does an operation at one agent.
func (w *workload) ask(ctx context.Context, a *agent, in *input, idempotency string) (out output, done bool) {
	if in.overlay {
		return w.doOverlay(ctx, a, in, idempotency)
	}
	return w.do(ctx, a, *in, idempotency)
}

// choose decides what to do: one operation in five concerns an overlay.
func (w *workload) choose(rng *rand.Rand) input {
	n := rng.IntN(10)
	if rng.IntN(5) == 0 {
		return w.chooseOverlay(rng, n)
	}
	in := input{key: key(w.round.Load(), rng.IntN(keysPerRound))}
	switch {
	case n < 4:
	case n < 8:
		in.kind, in.value = put, uint16(w.values.Add(1)%math.MaxUint16)+1
	default:
		in.kind = del
	}
	return in
}

// record notes an operation. One that was certainly not done is no part of
// the history; one that may be done later ends at infinity.
func (w *workload) record(client int, in input, out output, done bool, call int64) {
	ret := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !done:
		w.refused++
		return
	case out.unknown:
		w.unknown++
		ret = math.MaxInt64
	case in.kind != get:
		gap := time.Duration(ret - w.acked.Swap(ret))
		w.gap = max(w.gap, gap)
	}
	w.history = append(w.history, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: ret})
}

// answer is what is read of an agent's answer: of a service, or of a problem.
type answer struct {
	api.Service
	problem
}

type problem struct {
	Type   string `json:"type"`
	Detail string `json:"detail"`
}

// do asks one agent for an operation; done is false if it was certainly not done.
func (w *workload) do(ctx context.Context, a *agent, in input, idempotency string) (out output, done bool) {
	method, path := http.MethodGet, "/v1/services/"+in.key+"?consistency=linearizable"
	var body []byte
	switch in.kind {
	case put:
		method, path = http.MethodPost, "/v1/apps"
		app := api.App{AppID: in.key, Target: api.Target{ID: instanceID, IP: "10.9.0.1", Port: in.value}}
		body, _ = json.Marshal(app) // strings and numbers
	case del:
		method, path = http.MethodDelete, "/v1/apps/"+in.key+"/instances/"+instanceID
	}
	var ans answer
	status, err := w.c.call(ctx, a, method, path, idempotency, body, &ans)
	if err == nil && status == http.StatusOK && in.kind == get {
		for _, i := range ans.Instances {
			if i.ID == instanceID {
				return output{found: true, value: i.Port}, true
			}
		}
		return output{}, true
	}
	return w.outcome(in, status, err, ans.problem, method+" "+path+" at "+a.name)
}

// outcome is what a client learns from an answer that has nothing to read.
func (w *workload) outcome(in input, status int, err error, p problem, what string) (out output, done bool) {
	switch {
	case err != nil && in.kind == get:
		return output{}, false
	case err != nil:
		var op *net.OpError
		return output{unknown: true}, !errors.As(err, &op) || op.Op != "dial"
	case status == http.StatusNotFound:
		return output{}, true
	case status == http.StatusOK, status == http.StatusCreated:
		return output{found: true}, true
	case status == http.StatusServiceUnavailable && p.Type == "urn:fluid:unknown-outcome" && in.kind != get:
		return output{unknown: true}, true
	case status == http.StatusServiceUnavailable:
		return output{}, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, fmt.Sprintf("%s: %d %s %s", what, status, p.Type, p.Detail))
	return output{unknown: true}, in.kind != get
}

// awaitWrite waits until a write is acknowledged.
func (w *workload) awaitWrite(ctx context.Context) error {
	from := w.now()
	return w.c.await(ctx, "a write is acknowledged", func(context.Context) error {
		if w.acked.Load() <= from {
			return errors.New("none is")
		}
		return nil
	})
}

// finish reads every key once more, from the cluster that is whole again.
func (w *workload) finish(ctx context.Context) error {
	var last []input
	for round := range w.round.Load() + 1 {
		for i := range keysPerRound {
			last = append(last, input{key: key(round, i)})
		}
	}
	for _, id := range w.placed {
		last = append(last, input{key: id, overlay: true})
	}
	for i, in := range last {
		a := w.c.agents[i%len(w.c.agents)]
		err := w.c.await(ctx, "a linearizable read of "+in.key+" at "+a.name, func(ctx context.Context) error {
			call := w.now()
			out, done := w.ask(ctx, a, &in, "")
			if !done {
				return errors.New("refused")
			}
			w.record(w.clients, in, out, true, call)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *workload) report(out io.Writer) {
	counts := map[string]int{}
	for _, op := range w.history {
		in := op.Input.(input)
		name := [...]string{get: "reads", put: "registrations", del: "deregistrations"}[in.kind]
		if in.overlay && in.kind != get {
			name = "overlays"
		}
		counts[name]++
	}
	_, _ = fmt.Fprintf(out, "%d registrations, %d deregistrations, %d overlays placed or lifted, %d linearizable reads; %d of the writes with unknown outcome, %d operations refused\n",
		counts["registrations"], counts["deregistrations"], counts["overlays"], counts["reads"], w.unknown, w.refused)
	for _, fault := range slices.Sorted(maps.Keys(w.gaps)) {
		gaps := slices.Sorted(slices.Values(w.gaps[fault]))
		_, _ = fmt.Fprintf(out, "%-18s %3d times; longest time without a write: median %.1fs, worst %.1fs\n",
			fault, len(gaps), gaps[len(gaps)/2].Seconds(), gaps[len(gaps)-1].Seconds())
	}
}

// check judges the history. A picture of a wrong one is left in dir.
func (w *workload) check(out io.Writer, dir string) error {
	slices.SortFunc(w.history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	result, info := porcupine.CheckOperationsVerbose(registry, w.history, checkTimeout)
	switch {
	case result == porcupine.Illegal:
		path := filepath.Join(dir, "history.html")
		if err := porcupine.VisualizePath(registry, info, path); err != nil {
			return fmt.Errorf("the history is NOT linearizable, and cannot be drawn: %w", err)
		}
		return fmt.Errorf("the history is NOT linearizable, see %s", path)
	case result == porcupine.Unknown:
		return fmt.Errorf("the history could not be judged within %s", checkTimeout)
	case len(w.failures) > 0:
		return fmt.Errorf("%d answers that should not be, the first: %s", len(w.failures), w.failures[0])
	}
	_, _ = fmt.Fprintln(out, "the history is linearizable")
	return nil
}
