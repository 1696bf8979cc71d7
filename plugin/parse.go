package fluid

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/durations"
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/answer"
	"github.com/fluid-sd/fluid/plugin/record"
)

// parser collects what one directive says.
type parser struct {
	c           *caddy.Controller
	block       *block
	settings    settings
	seen        map[string]bool
	ttl         uint32
	negativeTTL uint32
	staleTTL    int // -1: as ttl
	limit       int
	servers     []answer.NameServer
	lines       []string // where each of servers was given
}

// parse reads the directive of one server block.
func parse(c *caddy.Controller) (*block, settings, error) {
	p := parser{
		c: c, settings: settings{}, seen: map[string]bool{},
		block: &block{staleFor: forever}, ttl: defaultTTL, negativeTTL: defaultNegativeTTL, staleTTL: -1,
	}
	first := true
	for c.Next() {
		if !first {
			return nil, nil, plugin.ErrOnce
		}
		first = false
		args := c.RemainingArgs()
		for c.NextBlock() {
			if err := p.option(); err != nil {
				return nil, nil, err
			}
		}
		if err := p.finish(args); err != nil {
			return nil, nil, err
		}
	}
	return p.block, p.settings, nil
}

// option reads one option. Options of the block are in blockOptions, those of
// the process in processOptions.
func (p *parser) option() error {
	name := p.c.Val()
	if p.seen[name] && name != "ns" {
		return p.c.Errf("%s is given twice", name)
	}
	p.seen[name] = true
	where := fmt.Sprintf("%s:%d", p.c.File(), p.c.Line())
	args := p.c.RemainingArgs()
	if read, ok := blockOptions[name]; ok {
		if err := read(p, args); err != nil {
			return p.fail(name, err)
		}
		return nil
	}
	read, ok := processOptions[name]
	if !ok {
		return p.c.Errf("unknown property '%s'", name)
	}
	apply, err := read(p, args)
	if err != nil {
		return p.fail(name, err)
	}
	p.settings[name] = setting{args: args, where: where, apply: apply}
	return nil
}

func (p *parser) fail(name string, err error) error {
	if errors.Is(err, errArgs) {
		return p.c.ArgErr()
	}
	return p.c.Errf("%s: %v", name, err)
}

// errArgs is returned for the wrong number of arguments.
var errArgs = errors.New("wrong number of arguments")

func number(args []string, low, high int) (int, error) {
	if len(args) != 1 {
		return 0, errArgs
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is not a number from %d to %d", args[0], low, high)
	}
	return n, nil
}

func duration(arg string) (time.Duration, error) {
	d, err := durations.NewDurationFromArg(arg)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 30s", arg)
	}
	return d, nil
}

func prefixes(args []string) ([]netip.Prefix, error) {
	if len(args) == 0 {
		return nil, errArgs
	}
	var out []netip.Prefix
	for _, arg := range args {
		p, err := netip.ParsePrefix(arg)
		if err != nil {
			a, err := netip.ParseAddr(arg)
			if err != nil {
				return nil, fmt.Errorf("%q is not a CIDR such as 10.0.0.0/8", arg)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// file returns a path relative to the root of the server.
func (p *parser) file(arg string) string {
	if root := dnsserver.GetConfig(p.c).Root; root != "" && !filepath.IsAbs(arg) {
		return filepath.Join(root, arg)
	}
	return arg
}

var blockOptions = map[string]func(*parser, []string) error{
	"ttl": func(p *parser, args []string) error {
		n, err := number(args, 0, maxTTL)
		p.ttl = uint32(n)
		return err
	},
	"negative_ttl": func(p *parser, args []string) error {
		n, err := number(args, 0, maxTTL)
		p.negativeTTL = uint32(n)
		return err
	},
	"answer_limit": func(p *parser, args []string) (err error) {
		p.limit, err = number(args, 1, 65535)
		return err
	},
	"serve_stale": (*parser).serveStale,
	"why": func(p *parser, args []string) (err error) {
		p.block.why, err = prefixes(args)
		return err
	},
	"ns": (*parser).nameServer,
	"fallthrough": func(p *parser, args []string) error {
		p.block.fall.SetZonesFromArgs(args)
		return nil
	},
}

func (p *parser) serveStale(args []string) (err error) {
	if len(args) < 1 || len(args) > 2 {
		return errArgs
	}
	p.block.staleFor = forever
	if args[0] != "forever" {
		if p.block.staleFor, err = duration(args[0]); err != nil {
			return err
		}
	}
	if len(args) == 2 {
		p.staleTTL, err = number(args[1:], 0, maxTTL)
	}
	return err
}

func (p *parser) nameServer(args []string) error {
	if len(args) == 0 {
		return errArgs
	}
	name := plugin.Name(args[0]).Normalize()
	if _, ok := dns.IsDomainName(name); !ok || name == "." {
		return fmt.Errorf("%q is not a domain name", args[0])
	}
	s := answer.NameServer{Name: name}
	for _, arg := range args[1:] {
		a, err := netip.ParseAddr(arg)
		if err != nil || a.Zone() != "" {
			return fmt.Errorf("%q is not an IP address", arg)
		}
		s.Addrs = append(s.Addrs, a.Unmap())
	}
	if slices.ContainsFunc(p.servers, func(o answer.NameServer) bool { return o.Name == name }) {
		return fmt.Errorf("%s is given twice", name)
	}
	p.servers = append(p.servers, s)
	p.lines = append(p.lines, fmt.Sprintf("%s:%d", p.c.File(), p.c.Line()))
	return nil
}

// finish makes the zones once all options are read.
func (p *parser) finish(args []string) error {
	origins, err := p.origins(args)
	if err != nil {
		return err
	}
	p.block.staleTTL = p.ttl
	if p.staleTTL >= 0 {
		p.block.staleTTL = uint32(p.staleTTL)
	}
	forward := ""
	for _, o := range origins {
		if !answer.IsReverse(o) {
			forward = o
			break
		}
	}
	if forward == "" {
		return p.c.Errf("the zones %s are all reverse zones; name a forward zone for their answers to lie in", strings.Join(origins, " "))
	}
	for i, s := range p.servers {
		inside := slices.ContainsFunc(origins, func(o string) bool { return dns.IsSubDomain(o, s.Name) })
		if !inside && len(s.Addrs) > 0 {
			return fmt.Errorf("%s: ns %s lies outside the zones, where its addresses cannot be answered; leave them out", p.lines[i], s.Name)
		}
		if inside && len(s.Addrs) == 0 {
			p.servers[i].Addrs = listenAddrs(dnsserver.GetConfig(p.c).ListenHosts)
		}
	}
	for _, o := range origins {
		cfg := answer.Config{Origin: o, TTL: p.ttl, NegativeTTL: p.negativeTTL, AnswerLimit: p.limit, Servers: p.servers}
		if answer.IsReverse(o) {
			cfg.Forward = forward
		}
		if len(cfg.Servers) == 0 {
			name := "ns.dns." + strings.TrimPrefix(cmp.Or(cfg.Forward, o), ".")
			cfg.Servers = []answer.NameServer{{Name: name, Addrs: listenAddrs(dnsserver.GetConfig(p.c).ListenHosts)}}
		}
		p.block.zones = append(p.block.zones, answer.NewZone(cfg))
	}
	slices.SortStableFunc(p.block.zones, func(a, b *answer.Zone) int { return cmp.Compare(len(b.Origin), len(a.Origin)) })
	return nil
}

// origins returns the zones of the directive, else of its server block.
func (p *parser) origins(args []string) ([]string, error) {
	for _, arg := range args {
		if len(plugin.Host(arg).NormalizeExact()) == 0 {
			return nil, p.c.Errf("%q is not a zone", arg)
		}
	}
	var out []string
	for _, o := range plugin.OriginsFromArgsOrServerBlock(args, p.c.ServerBlockKeys) {
		if _, ok := dns.IsDomainName(o); !ok || o == "" {
			return nil, p.c.Errf("%q is not a zone", o)
		}
		if o = dns.CanonicalName(o); !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	if len(out) == 0 {
		return nil, p.c.Errf("no zone is given")
	}
	return out, nil
}

// listenAddrs returns the addresses that a server on the given hosts is
// reached at. It asks the kernel for its interfaces where a server listens on
// all of them; loopback is used only if there is nothing else.
func listenAddrs(hosts []string) []netip.Addr {
	var out, loop []netip.Addr
	add := func(a netip.Addr, bound bool) {
		a = a.Unmap().WithZone("")
		switch {
		case record.ValidateAddr("", a) != nil || slices.Contains(out, a):
		case a.IsLoopback() && !bound:
			loop = append(loop, a)
		default:
			out = append(out, a)
		}
	}
	for _, host := range hosts {
		if a, err := netip.ParseAddr(host); err == nil && !a.IsUnspecified() {
			add(a, true)
			continue
		}
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			continue
		}
		for _, addr := range addrs {
			if p, err := netip.ParsePrefix(addr.String()); err == nil {
				add(p.Addr(), false)
			}
		}
	}
	if len(out) == 0 {
		return loop
	}
	return out
}
