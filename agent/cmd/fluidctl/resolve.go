package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"
)

// answer is what fluidctl resolve shows.
type answer struct {
	Name       string   `json:"name"`
	Type       string   `json:"type"`
	Server     string   `json:"server"`
	Rcode      string   `json:"rcode"`
	Millis     float64  `json:"millis"`
	Answers    []rr     `json:"answers"`
	Additional []rr     `json:"additional"`
	EDE        []string `json:"ede"`
}

type rr struct {
	Name string `json:"name"`
	TTL  uint32 `json:"ttl"`
	Type string `json:"type"`
	Data string `json:"data"`
}

func (c *ctl) resolveCmd() *cobra.Command {
	var server, zone, typ string
	cmd := &cobra.Command{
		Use: "resolve NAME", Short: "Ask DNS for a name, as an application does",
		Long: "Ask DNS for a name, as an application does. A name that does not end in the zone or in a dot\n" +
			"is taken to be in the zone. Exits 1 if the answer is empty.",
		Example: "  fluidctl resolve checkout\n  fluidctl resolve _http._tcp.web --type SRV",
		Args:    cobra.MatchAll(needArgs("name what to look up: fluidctl resolve checkout"), cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			qtype, ok := dns.StringToType[strings.ToUpper(typ)]
			if !ok {
				return usageError("--type %s is not a record type", typ)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
			defer cancel()
			a, err := lookup(ctx, server, qualify(args[0], zone), qtype)
			if err != nil {
				return err
			}
			if err := printAs(c, a, answerTable); err != nil {
				return err
			}
			if len(a.Answers) == 0 {
				return &exitError{exitFailed, fmt.Errorf("no %s record of %s: %s", a.Type, a.Name, strings.Join(append([]string{a.Rcode}, a.EDE...), "; "))}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&server, "dns", envOr("FLUID_DNS", "127.0.0.1:1053"), "DNS server (FLUID_DNS)")
	cmd.Flags().StringVar(&zone, "zone", envOr("FLUID_DNS_ZONE", "fluid.internal"), "zone of names without one (FLUID_DNS_ZONE)")
	cmd.Flags().StringVarP(&typ, "type", "t", "A", "record type")
	return cmd
}

// qualify returns name as a fully qualified name.
func qualify(name, zone string) string {
	zone = dns.Fqdn(zone)
	if fq := dns.Fqdn(name); fq == name || dns.IsSubDomain(zone, fq) {
		return fq
	}
	return name + "." + strings.TrimPrefix(zone, ".")
}

// lookup asks by UDP, and by TCP where that was cut.
func lookup(ctx context.Context, server, name string, qtype uint16) (answer, error) {
	a := answer{
		Name: name, Type: dns.TypeToString[qtype], Server: server,
		Answers: []rr{}, Additional: []rr{}, EDE: []string{},
	}
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.SetEdns0(1232, false)
	start := time.Now()
	r, _, err := (&dns.Client{Net: "udp"}).ExchangeContext(ctx, m, server)
	if err == nil && r.Truncated {
		r, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, m, server)
	}
	if err != nil {
		return a, fmt.Errorf("no answer from DNS at %s: %w\nstart coredns, or name another server with --dns", server, err)
	}
	a.Millis = float64(time.Since(start).Microseconds()) / 1000
	a.Rcode = dns.RcodeToString[r.Rcode]
	for _, x := range r.Answer {
		a.Answers = append(a.Answers, shown(x))
	}
	for _, x := range r.Extra {
		opt, ok := x.(*dns.OPT)
		if !ok {
			a.Additional = append(a.Additional, shown(x))
			continue
		}
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				a.EDE = append(a.EDE, strings.TrimSpace(fmt.Sprintf("EDE %d (%s) %s",
					e.InfoCode, dns.ExtendedErrorCodeToString[e.InfoCode], e.ExtraText)))
			}
		}
	}
	return a, nil
}

func shown(x dns.RR) rr {
	h := x.Header()
	return rr{h.Name, h.Ttl, dns.TypeToString[h.Rrtype], strings.TrimPrefix(x.String(), h.String())}
}

func answerTable(w io.Writer, a answer) {
	for _, list := range [][]rr{a.Answers, a.Additional} {
		for _, x := range list {
			row(w, x.Name, x.TTL, x.Type, x.Data)
		}
	}
	for _, e := range a.EDE {
		row(w, "; "+e)
	}
}
