package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
)

// fault is one way to break a cluster.
type fault struct {
	agents int // that it takes at least
	// begin breaks something. leader leads, others are all but it. It returns
	// what it did, in words, and how to undo it; or "" if it cannot be done
	// now without losing the cluster.
	begin func(ctx context.Context, c *cluster, p players) (what string, undo func(context.Context) error, err error)
}

// players are the agents as a fault sees them, in random order.
type players struct {
	leader *agent
	others []*agent
	raft   api.Raft // as the leader sees it
}

var faultsByName = map[string]fault{
	"kill-leader": {1, func(_ context.Context, c *cluster, p players) (string, func(context.Context) error, error) {
		return kill(c, p.leader)
	}},
	"kill-other": {2, func(_ context.Context, c *cluster, p players) (string, func(context.Context) error, error) {
		return kill(c, p.others[0])
	}},
	"kill-all": {1, func(_ context.Context, c *cluster, _ players) (string, func(context.Context) error, error) {
		return kill(c, c.agents...)
	}},
	"pause-leader": {1, func(_ context.Context, _ *cluster, p players) (string, func(context.Context) error, error) {
		return freeze(p.leader)
	}},
	"pause-other": {2, func(_ context.Context, _ *cluster, p players) (string, func(context.Context) error, error) {
		return freeze(p.others[0])
	}},
	"leader-alone": {3, func(ctx context.Context, c *cluster, p players) (string, func(context.Context) error, error) {
		return split(ctx, c, "both ways", []*agent{p.leader}, p.others)
	}},
	"leader-mute": {3, func(ctx context.Context, c *cluster, p players) (string, func(context.Context) error, error) {
		return split(ctx, c, "from", []*agent{p.leader}, p.others)
	}},
	"leader-deaf": {3, func(ctx context.Context, c *cluster, p players) (string, func(context.Context) error, error) {
		return split(ctx, c, "to", []*agent{p.leader}, p.others)
	}},
	"leader-in-minority": {5, func(ctx context.Context, c *cluster, p players) (string, func(context.Context) error, error) {
		n := (len(c.agents) - 1) / 2
		return split(ctx, c, "both ways", append([]*agent{p.leader}, p.others[:n-1]...), p.others[n-1:])
	}},
	"leader-in-majority": {3, func(ctx context.Context, c *cluster, p players) (string, func(context.Context) error, error) {
		n := (len(c.agents) - 1) / 2
		return split(ctx, c, "both ways", p.others[:n], append([]*agent{p.leader}, p.others[n:]...))
	}},
	"lost-disk":       {4, loseDisk},
	"forgetful-voter": {4, forget},
}

// faultNames returns the faults that fit so many agents, sorted.
func faultNames(agents int) []string {
	var names []string
	for name, f := range faultsByName {
		if f.agents <= agents {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func kill(c *cluster, agents ...*agent) (string, func(context.Context) error, error) {
	for _, a := range agents {
		a.signal(syscall.SIGKILL)
	}
	for _, a := range agents {
		a.kill()
	}
	return "kill -9 " + names(agents), func(context.Context) error {
		for _, a := range agents {
			if err := c.restart(a); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func freeze(a *agent) (string, func(context.Context) error, error) {
	a.signal(syscall.SIGSTOP)
	return "stop " + a.name, func(context.Context) error {
		a.signal(syscall.SIGCONT)
		return nil
	}, nil
}

// split drops what one side sends to the other: "both ways", only what comes
// "from" it, or only what goes "to" it.
func split(ctx context.Context, c *cluster, way string, one, other []*agent) (string, func(context.Context) error, error) {
	var err error
	if way != "to" {
		err = c.net.cut(ctx, numbers(one), numbers(other))
	}
	if way != "from" && err == nil {
		err = c.net.cut(ctx, numbers(other), numbers(one))
	}
	what := fmt.Sprintf("drop %s %s", way, names(one))
	if way == "both ways" {
		what = fmt.Sprintf("cut %s from %s", names(one), names(other))
	}
	return what, c.net.heal, err
}

// loseDisk takes the disk of an agent that does not lead. Only a cluster that
// has all its voters survives that for certain.
func loseDisk(ctx context.Context, c *cluster, p players) (string, func(context.Context) error, error) {
	if err := c.whole(ctx); err != nil {
		return "", nil, nil //nolint:nilerr // another fault is chosen then
	}
	_, undo, err := kill(c, p.others[0])
	if err == nil {
		err = p.others[0].wipe()
	}
	return "take the disk of " + p.others[0].name, undo, err
}

// forget sets the trap for a voter that comes back empty under its old identity:
// what only it and the leader have on disk is acknowledged while another voter
// is cut off; then it loses its disk, the leader is away, and the two that know
// nothing of it could make a quorum. They must not: the leader has to come back.
func forget(ctx context.Context, c *cluster, p players) (string, func(context.Context) error, error) {
	voters := p.otherVoters()
	if err := c.whole(ctx); err != nil || len(voters) != 2 {
		return "", nil, nil //nolint:nilerr // another fault is chosen then
	}
	late, wiped := voters[0], voters[1]
	_, heal, err := split(ctx, c, "both ways", []*agent{late}, without(c.agents, late))
	if err != nil {
		return "", nil, err
	}
	pause(ctx, minFault) // writes are acknowledged by the other two
	_, undo, err := kill(c, p.leader)
	if err != nil {
		return "", nil, err
	}
	_, back, err := kill(c, wiped)
	if err == nil {
		err = wiped.wipe()
	}
	if err == nil {
		err = heal(ctx)
	}
	if err == nil {
		err = back(ctx)
	}
	return fmt.Sprintf("cut %s off, then take the disk of %s and kill -9 %s", late.name, wiped.name, p.leader.name), undo, err
}

// otherVoters returns the voters that do not lead, in random order.
func (p *players) otherVoters() []*agent {
	var out []*agent
	for _, a := range p.others {
		for _, s := range p.raft.Servers {
			if s.Name == a.name && s.Suffrage == "voter" {
				out = append(out, a)
			}
		}
	}
	return out
}

func without(agents []*agent, a *agent) []*agent {
	return slices.DeleteFunc(slices.Clone(agents), func(b *agent) bool { return a == b })
}

func names(agents []*agent) string {
	var all []string
	for _, a := range agents {
		all = append(all, a.name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func numbers(agents []*agent) []int {
	var all []int
	for _, a := range agents {
		all = append(all, a.number)
	}
	return all
}

// How long a fault lasts and how long the cluster is left alone afterwards.
const (
	minFault, maxFault = 2 * time.Second, 7 * time.Second
	minCalm, maxCalm   = 2 * time.Second, 4 * time.Second
)

// breakThings breaks the cluster again and again until the time is up, and
// leaves it whole.
func breakThings(ctx context.Context, c *cluster, w *workload, o options, out io.Writer) error {
	rng := rand.New(rand.NewPCG(o.seed, 1))
	between := func(low, high time.Duration) time.Duration { return low + time.Duration(rng.Int64N(int64(high-low))) }
	began := time.Now()
	for time.Since(began) < o.duration {
		// Drawn in any case, so that the schedule depends on the seed alone.
		name := o.faults[rng.IntN(len(o.faults))]
		order := rng.Perm(len(c.agents))
		lasts, calm := between(minFault, maxFault), between(minCalm, maxCalm)
		var p players
		err := c.await(ctx, "an agent leads", func(ctx context.Context) (err error) {
			p.raft, p.leader, err = c.leader(ctx)
			return err
		})
		if err != nil {
			return err
		}
		for _, i := range order {
			if a := c.agents[i]; a != p.leader {
				p.others = append(p.others, a)
			}
		}
		what, undo, err := faultsByName[name].begin(ctx, c, p)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if what == "" {
			continue
		}
		w.nextRound()
		at := time.Since(began)
		pause(ctx, lasts)
		if err := undo(ctx); err != nil {
			return fmt.Errorf("undo %s: %w", name, err)
		}
		if err := w.awaitWrite(ctx); err != nil {
			return fmt.Errorf("after %s (%s): %w", name, what, err)
		}
		_, _ = fmt.Fprintf(out, "%6.1fs %-18s for %.1fs: %s; %s led; at most %.1fs without a write\n",
			at.Seconds(), name, lasts.Seconds(), what, p.leader.name, w.endRound(name).Seconds())
		if !pause(ctx, calm) {
			return ctx.Err()
		}
	}
	return c.await(ctx, "all agents are one healthy cluster again", c.whole)
}
