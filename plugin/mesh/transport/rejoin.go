package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// joinSeeds is how many seeds a member asks when it joins first.
	joinSeeds = 3
	// rejoinDead is how many dead members are tried in one round.
	rejoinDead = 2
	// maxDead bounds the dead members that are remembered.
	maxDead = 4096
	// settleFrom and settleTo bound the time from many members appearing to the
	// exchange that makes up for what gossip left out.
	settleFrom, settleTo = 2 * time.Second, 4 * time.Second
	// settleWindow is the time within which members count as appearing together.
	settleWindow = 5 * time.Second
	// settleMembers is how many that are, and settleShare which part of the mesh.
	settleMembers, settleShare = 3, 20
	// seedTries and deadTries are how many members of one side of a split are
	// expected to try in one round: enough for one to try at once, few enough
	// not to be a storm.
	seedTries = 5
	deadTries = 32
)

// RejoinConfig says how a member finds the others, first and again.
type RejoinConfig struct {
	// Seeds are addresses with port, or names with port that are looked up anew
	// each time.
	Seeds []string
	// Self is left out of the seeds.
	Self netip.AddrPort
	// Join contacts one address, as memberlist's Join does; it returns when it
	// has succeeded or failed.
	Join func(addr string) error
	// Lookup resolves the names of seeds; default is the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// JoinDelay is the longest random delay before the first join, so that many
	// members started at once do not join at once. Default none.
	JoinDelay time.Duration
	// IntervalMin and IntervalMax bound the time from one round to the next;
	// default 15 s and 25 s, so that a heal is noticed within 30 s.
	IntervalMin, IntervalMax time.Duration
	// DeadFor is how long a dead member is tried; default 72 h.
	DeadFor time.Duration
	// Joined, if set, is called after each successful join with its address.
	Joined func(addr string)
	Logger *slog.Logger // default none
}

func (c RejoinConfig) withDefaults() RejoinConfig {
	if c.Lookup == nil {
		c.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	c.IntervalMin = positive(c.IntervalMin, 15*time.Second)
	c.IntervalMax = max(c.IntervalMin, positive(c.IntervalMax, 25*time.Second))
	c.DeadFor = positive(c.DeadFor, 72*time.Hour)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Rejoiner joins the mesh and puts it together again after a split, which
// memberlist alone never does: once both sides have declared each other dead,
// neither talks to the other. Every 15 to 25 seconds it tries seeds that are
// not members and members that died in the last 72 hours, with the probability
// (dead / alive) that Serf uses, so that the smaller side always tries and a
// large mesh with few dead hardly ever. It is safe for concurrent use.
type Rejoiner struct {
	cfg RejoinConfig

	mu    sync.Mutex // guards what follows
	alive map[MemberID]netip.AddrPort
	dead  map[MemberID]deadMember
	// came counts the members that appeared since the time.
	came  int
	since time.Time
	stir  chan struct{} // capacity 1: many came
}

type deadMember struct {
	addr  netip.AddrPort
	since time.Time
}

// NewRejoiner returns a Rejoiner that does nothing before Run.
func NewRejoiner(cfg RejoinConfig) (*Rejoiner, error) {
	if cfg.Join == nil {
		return nil, errors.New("rejoin: Join must be set")
	}
	for _, s := range cfg.Seeds {
		if _, _, err := splitSeed(s); err != nil {
			return nil, fmt.Errorf("rejoin: %w", err)
		}
	}
	return &Rejoiner{
		cfg: cfg.withDefaults(), alive: make(map[MemberID]netip.AddrPort), dead: make(map[MemberID]deadMember), stir: make(chan struct{}, 1),
	}, nil
}

// Alive tells that a member, other than this one, is alive at an address. It
// does not block, as memberlist's event delegate demands.
func (r *Rejoiner) Alive(id MemberID, at netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.alive[id]; !known {
		if time.Since(r.since) > settleWindow {
			r.came, r.since = 0, time.Now()
		}
		if r.came++; r.came >= max(settleMembers, len(r.alive)/settleShare) {
			select {
			case r.stir <- struct{}{}:
			default:
			}
		}
	}
	r.alive[id] = at
	delete(r.dead, id)
}

// Dead tells that a member is dead. It is tried again for the time of the
// configuration.
func (r *Rejoiner) Dead(id MemberID, at netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.alive, id)
	if _, known := r.dead[id]; !known && len(r.dead) >= maxDead {
		r.forgetOldest()
	}
	r.dead[id] = deadMember{addr: at, since: time.Now()}
}

// Left tells that a member went on purpose; it is not tried again.
func (r *Rejoiner) Left(id MemberID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.alive, id)
	delete(r.dead, id)
}

// forgetOldest drops the member that is dead longest. The caller holds mu.
func (r *Rejoiner) forgetOldest() {
	var oldest MemberID
	var since time.Time
	for id, d := range r.dead {
		if oldest == "" || d.since.Before(since) {
			oldest, since = id, d.since
		}
	}
	delete(r.dead, oldest)
}

// Run joins, then keeps the mesh together until ctx ends. It does not return
// earlier, and logs failures at debug level: there is always a next round.
func (r *Rejoiner) Run(ctx context.Context) {
	var settling sync.WaitGroup
	defer settling.Wait()
	settling.Go(func() { r.settle(ctx) })
	if !r.first(ctx) {
		return
	}
	for {
		start := time.Now()
		if !wait(ctx, r.cfg.IntervalMin+rand.N(r.cfg.IntervalMax-r.cfg.IntervalMin+1)) {
			return
		}
		// Attempts hang while the network is cut: the next round is due a whole
		// interval after this one began, not after it ended.
		ctx, cancel := context.WithTimeout(ctx, r.cfg.IntervalMax-time.Since(start)+r.cfg.IntervalMin)
		r.try(ctx, r.targets(ctx))
		cancel()
	}
}

// settle exchanges states with one member after many have appeared, as when a
// split healed. Gossip tells most members of most of them within a second or
// two, and leaves out a few; the library's own exchange comes too rarely.
func (r *Rejoiner) settle(ctx context.Context) {
	for {
		select {
		case <-r.stir:
		case <-ctx.Done():
			return
		}
		if !wait(ctx, settleFrom+rand.N(settleTo-settleFrom)) {
			return
		}
		r.mu.Lock()
		r.came = 0
		select {
		case <-r.stir: // the exchange serves those as well
		default:
		}
		var alive []string
		for _, at := range r.alive {
			alive = append(alive, at.String())
		}
		r.mu.Unlock()
		if len(alive) > 0 {
			r.try(ctx, []string{alive[rand.N(len(alive))]})
		}
	}
}

// first joins through a few seeds, after a random delay, until one answers or
// another member has found this one. It reports false if ctx ended.
func (r *Rejoiner) first(ctx context.Context) bool {
	if len(r.cfg.Seeds) == 0 {
		return ctx.Err() == nil
	}
	if r.cfg.JoinDelay > 0 && !wait(ctx, rand.N(r.cfg.JoinDelay)) {
		return false
	}
	for backoff := time.Second; ; backoff = min(2*backoff, r.cfg.IntervalMin) {
		seeds := r.missing(ctx, r.cfg.Seeds)
		shuffle(seeds)
		if len(seeds) == 0 || r.try(ctx, seeds[:min(joinSeeds, len(seeds))]) > 0 {
			return ctx.Err() == nil
		}
		if !wait(ctx, jitter(backoff)) {
			return false
		}
		r.mu.Lock()
		found := len(r.alive) > 0
		r.mu.Unlock()
		if found {
			return true
		}
	}
}

// targets draws whom to try in this round.
func (r *Rejoiner) targets(ctx context.Context) []string {
	r.mu.Lock()
	var dead []string
	for id, d := range r.dead {
		if time.Since(d.since) > r.cfg.DeadFor {
			delete(r.dead, id)
		} else {
			dead = append(dead, d.addr.String())
		}
	}
	alive := float64(1 + len(r.alive))
	r.mu.Unlock()

	var out []string
	if p := min(float64(len(dead)), deadTries) / alive; rand.Float64() < p {
		shuffle(dead)
		out = dead[:min(rejoinDead, len(dead))]
	}
	if rand.Float64() < seedTries/alive {
		if seeds := r.missing(ctx, r.cfg.Seeds); len(seeds) > 0 {
			out = append(out, seeds[rand.N(len(seeds))])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// missing returns the addresses of the seeds that are neither alive members
// nor this one. A name none of whose addresses is a member counts with all.
func (r *Rejoiner) missing(ctx context.Context, seeds []string) []string {
	var out []string
	for _, seed := range seeds {
		host, port, err := splitSeed(seed)
		if err != nil {
			continue // NewRejoiner has refused it
		}
		addrs, err := r.resolve(ctx, host)
		if err != nil {
			r.cfg.Logger.Debug("look up seed", "seed", seed, "error", err)
			continue
		}
		for _, a := range addrs {
			if ap := netip.AddrPortFrom(a.Unmap(), port); ap != r.cfg.Self && !r.isAlive(ap) {
				out = append(out, ap.String())
			}
		}
	}
	return out
}

func (r *Rejoiner) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return r.cfg.Lookup(ctx, host)
}

func (r *Rejoiner) isAlive(ap netip.AddrPort) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.alive {
		if a == ap {
			return true
		}
	}
	return false
}

// try joins all addresses at once and returns how many answered; it returns
// when ctx ends, though memberlist's Join may go on.
func (r *Rejoiner) try(ctx context.Context, addrs []string) (joined int) {
	results := make(chan bool, len(addrs))
	for _, addr := range addrs {
		go func() {
			err := r.cfg.Join(addr)
			if err != nil {
				r.cfg.Logger.Debug("join", "addr", addr, "error", err)
			} else if r.cfg.Joined != nil {
				r.cfg.Joined(addr)
			}
			results <- err == nil
		}()
	}
	for range addrs {
		select {
		case ok := <-results:
			if ok {
				joined++
			}
		case <-ctx.Done():
			return joined
		}
	}
	return joined
}

func shuffle(s []string) { rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] }) }

func splitSeed(s string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return "", 0, fmt.Errorf("seed %q is not an address with a port: use for example 10.0.0.9:7946", s)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("seed %q has no port from 1 to 65535", s)
	}
	return host, uint16(n), nil
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
