package agent

import (
	"math/rand/v2"
	"net/url"

	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// maxStrangers bounds the agents that a client asks in one round because gossip
// tells of them. Any one that is there knows who the servers are.
const maxStrangers = 5

// trusted reports whether an address that gossip told may be used: who holds a
// gossip key must not be able to name a cluster, or be sent the join secret. On
// this host, or under a certificate of the operator's own authority, it can be
// nobody else.
func (c *Config) trusted(base string) bool {
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Host == "":
		return false
	case u.Scheme == "https":
		return c.TLSCAFile != "" || c.Insecure
	}
	return u.Scheme == "http" && (c.Insecure || isLoopback(u.Host))
}

// gossiped returns the HTTP interfaces of some other agents that the mesh tells
// of, as far as they can be trusted.
func (a *Agent) gossiped() []string {
	states := map[string]mesh.State{}
	if p := a.mesh.Load(); p != nil {
		for _, m := range (*p).Members() {
			states[m.ID] = m.State
		}
	}
	var nodes []record.Node
	own := a.meshID()
	a.view.mu.RLock()
	for _, o := range a.view.cat.Origins() {
		if n := o.Node; n.HTTP != "" && n.ID != own && a.cfg.trusted(n.HTTP) {
			nodes = append(nodes, n)
		}
	}
	a.view.mu.RUnlock()
	return pickStrangers(nodes, states)
}

// pickStrangers returns whom to ask, by chance, so that the next round asks others:
// those that are alive, then those of whom nothing is known. Those that are dead
// are asked only if there is nobody else: the mesh may be what is broken.
func pickStrangers(nodes []record.Node, states map[string]mesh.State) []string {
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	var alive, unknown, dead []string
	for _, n := range nodes {
		switch states[n.ID] {
		case mesh.Alive:
			alive = append(alive, n.HTTP)
		case mesh.Dead:
			dead = append(dead, n.HTTP)
		case mesh.Left:
		default:
			unknown = append(unknown, n.HTTP)
		}
	}
	out := append(alive, unknown...)
	if len(out) == 0 {
		out = dead
	}
	return out[:min(len(out), maxStrangers)]
}
