package main

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// probe asks one server at a fixed rate, waiting for no answer before the next
// question, and judges every answer by the history.
type probe struct {
	port    int
	rate    int // queries per second
	work    workload
	history *history
	rng     *rand.Rand
}

// question is one that is under way, nil in its place if none.
type question struct {
	service int
	msg     *dns.Msg
	sent    time.Time
}

// lateAfter is how long an answer is waited for before it counts as lost.
const lateAfter = 2 * time.Second

// run asks for limit and returns what it saw. Questions take the 65,536 ids in
// turn, so rates up to 32,000 fit in the 2 s of patience.
func (p *probe) run(ctx context.Context, limit time.Duration) (phase, error) {
	conn, err := dialStamped(ctx, p.port)
	if err != nil {
		return phase{}, err
	}
	defer conn.Close()
	t := &tally{history: p.history, ttl: p.work.TTL, open: map[uint16]question{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.receive(conn)
	}()
	err = p.send(ctx, conn, t, limit)
	// What is still under way gets its time; then the read ends.
	_ = conn.SetReadDeadline(time.Now().Add(lateAfter))
	if t.idle() {
		_ = conn.SetReadDeadline(time.Now())
	}
	<-done
	return t.result(), err
}

// send asks for random services at the rate until limit is over. Questions that
// it missed, because it did not run for a while, are left out: a burst of them
// would measure the burst.
func (p *probe) send(ctx context.Context, conn net.Conn, t *tally, limit time.Duration) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	interval := time.Second / time.Duration(p.rate)
	next := time.Now()
	end := next.Add(limit)
	for id := uint16(0); ; {
		now := time.Now()
		if now.After(end) {
			return nil
		}
		if now.Sub(next) > 10*time.Millisecond {
			next = now
		}
		for ; !next.After(now); next, id = next.Add(interval), id+1 {
			q := question{service: p.rng.IntN(p.work.Services)}
			q.msg = query(p.work.name(q.service))
			q.msg.Id = id
			wire, err := q.msg.Pack()
			if err != nil {
				return err
			}
			if err := t.ask(q, func() error { _, err := conn.Write(wire); return err }); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// tally matches answers with questions. It is safe for concurrent use.
type tally struct {
	history *history
	ttl     int

	mu        sync.Mutex
	open      map[uint16]question // under way, by id
	latencies []time.Duration
	seen      phase
}

// ask notes that q is sent now, and sends it.
func (t *tally) ask(q question, send func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.open[q.msg.Id]; ok {
		t.seen.Lost++ // 65,536 questions ago
	}
	q.sent = time.Now()
	t.open[q.msg.Id] = q
	return send()
}

// idle tells whether every question has its answer.
func (t *tally) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open) == 0
}

// receive reads answers until the connection's deadline passes.
func (t *tally) receive(conn *net.UDPConn) {
	buf, control := make([]byte, 4096), make([]byte, 128)
	for {
		n, c, _, _, err := conn.ReadMsgUDPAddrPort(buf, control)
		if err != nil {
			return
		}
		t.judge(buf[:n], arrival(control[:c], time.Now()))
	}
}

// judge counts one message that arrived now.
func (t *tally) judge(wire []byte, now time.Time) {
	var reply dns.Msg
	err := reply.Unpack(wire)
	t.mu.Lock()
	defer t.mu.Unlock()
	q, ok := t.open[reply.Id]
	if !ok {
		return // later than its patience, already lost
	}
	delete(t.open, reply.Id)
	t.seen.Answers++
	t.latencies = append(t.latencies, max(0, now.Sub(q.sent)))
	var got []netip.Addr
	if err == nil {
		got, err = answered(q.msg, &reply, t.ttl)
	}
	var age time.Duration
	if err == nil {
		age, err = t.history.check(q.service, got, now)
	}
	t.seen.Oldest = max(t.seen.Oldest, age)
	if err != nil {
		t.seen.Wrong++
		t.seen.Example = err.Error()
	}
}

// result is what was seen; questions without an answer are lost.
func (t *tally) result() phase {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen.Lost += len(t.open)
	t.seen.P50, t.seen.P99 = percentile(t.latencies, 50), percentile(t.latencies, 99)
	return t.seen
}
