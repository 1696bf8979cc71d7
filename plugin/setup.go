package fluid

import (
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/coredns/coredns/plugin/transfer"
)

// pluginName is the directive, and what CoreDNS finds the handler by.
const pluginName = "fluid"

var log = clog.NewWithPlugin(pluginName)

func init() { plugin.Register(pluginName, setup) }

// setup reads one server block. It starts nothing.
func setup(c *caddy.Controller) error {
	err := protect(func() error { return prepare(c) })()
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	return nil
}

func prepare(c *caddy.Controller) error {
	b, given, err := parse(c)
	if err != nil {
		return err
	}
	g, ok := c.Get(generationKey{}).(*generation)
	if !ok {
		g = &generation{settings: settings{}}
		c.Set(generationKey{}, g)
	}
	if err := g.settings.merge(given); err != nil {
		return err
	}
	p := g.settings.process()
	if err := p.validate(); err != nil {
		return c.Err(err.Error())
	}
	if err := leases.check(g.settings); err != nil {
		return c.Err(err.Error())
	}
	g.blocks = append(g.blocks, b)
	f := &Fluid{shared: &shared{block: b}}
	cfg := dnsserver.GetConfig(c)
	// Called once for each zone, listener and socket of the block.
	cfg.AddPlugin(func(next plugin.Handler) plugin.Handler {
		h := *f
		h.Next = next
		return &h
	})
	first := len(g.blocks) == 1
	c.OnStartup(protect(func() error {
		if x, ok := cfg.Handler("transfer").(*transfer.Transfer); ok && b.transfer == nil {
			b.transfer = x
		}
		b.neighbours = neighbours(cfg)
		e, err := leases.acquire(g)
		if err != nil {
			return plugin.Error(pluginName, err)
		}
		f.engine.Store(e)
		if first {
			announce(g)
			e.await(g.settings.process().StartupTimeout)
		}
		return nil
	}))
	// CoreDNS takes an error from here for a failed reload while the new
	// instance already runs, so there never is one.
	quietly := func(f func()) func() error {
		return func() error {
			if err := protect(func() error { f(); return nil })(); err != nil {
				log.Errorf("%v", err)
			}
			return nil
		}
	}
	c.OnRestartFailed(quietly(leases.reclaim))
	c.OnShutdown(quietly(func() { leases.release(g) }))
	c.OnFinalShutdown(quietly(func() { leases.finish(g) }))
	return nil
}

// neighbours returns the plugins of the block that undo what fluid does.
func neighbours(cfg *dnsserver.Config) []string {
	var out []string
	for _, h := range cfg.Handlers() {
		if name := h.Name(); name == "loadbalance" || name == "cache" {
			out = append(out, name)
		}
	}
	return out
}

// announce says what an operator should know about the configuration.
func announce(g *generation) {
	if path := g.settings.process().Snapshot; path != "" {
		if dir, err := os.Stat(filepath.Dir(path)); err != nil || !dir.IsDir() {
			log.Warningf("snapshot: %s is not a directory; nothing will be kept there until you create it, writable for CoreDNS", filepath.Dir(path))
		}
	}
	for _, b := range g.blocks {
		if slices.Contains(b.neighbours, "loadbalance") {
			log.Warningf("%s: loadbalance in the same server block reorders answers that are already weighted", b.zones[0].Origin)
		}
		if slices.Contains(b.neighbours, "cache") {
			log.Warningf("%s: cache in the same server block costs more than answering and is bypassed for the zones of fluid", b.zones[0].Origin)
		}
	}
}

// await waits until there is something to answer from, or for the timeout.
func (e *engine) await(timeout time.Duration) {
	if timeout <= 0 {
		return
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-e.synced:
	case <-t.C:
		source := "the agent at " + e.options.Agent
		if e.member != nil {
			source += " or the mesh"
		}
		log.Warningf("nothing known after %v: answering SERVFAIL until %s tells", timeout, source)
	}
}
