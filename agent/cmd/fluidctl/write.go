package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/api"
)

// writeFlags are the conditions that every change can have.
type writeFlags struct {
	key     string
	ifMatch int64
	wait    bool
}

func (f *writeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "idempotency-key", "", "name this change, so that repeating it does nothing")
	waitFlag(cmd, &f.wait)
	cmd.Flags().Int64Var(&f.ifMatch, "if-match", -1, "index that the thing to change must have; 0: it must not exist")
}

func (f *writeFlags) options(c *ctl) *api.WriteOptions {
	o := &api.WriteOptions{IdempotencyKey: f.key}
	c.everywhere(o, f.wait)
	if f.ifMatch >= 0 {
		n := uint64(f.ifMatch)
		o.IfMatch = &n
	}
	return o
}

func (c *ctl) registerCmd() *cobra.Command {
	var t api.Target
	var ips, tags, ports, meta []string
	var weight int
	var file string
	var wf writeFlags
	var ef ephemeralFlags
	var checks checkFlags
	cmd := &cobra.Command{
		Use:   "register SERVICE --ip ADDRESS",
		Short: "Register an instance of a critical service, or an ephemeral one",
		Example: `  fluidctl register checkout --ip 10.0.0.9
  fluidctl register web --ip 10.0.0.10 --port 8080 --named-port metrics=9100 --tag v2 --zone eu-1
  fluidctl register cache --ip 10.0.0.5 --port 6379 --ephemeral
  fluidctl register --file instances.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := ef.check(cmd); err != nil {
				return err
			}
			register := func(apps []api.App) error {
				if ef.on {
					return c.vouch(cmd.Context(), apps, &ef)
				}
				return c.register(cmd.Context(), apps, wf.options(c))
			}
			if file != "" {
				if len(args) > 0 {
					return usageError("give either a service or --file")
				}
				apps, err := readApps(c.stdin, file)
				if err != nil {
					return err
				}
				return register(apps)
			}
			if len(args) == 0 {
				return usageError("name the service: fluidctl register checkout --ip 10.0.0.9")
			}
			if t.IPs = ips; len(ips) == 1 {
				t.IP, t.IPs = ips[0], nil
			}
			t.Tags = tags
			if cmd.Flags().Changed("weight") {
				if weight < 0 || weight > 65535 {
					return usageError("--weight %d is not from 0 to 65535", weight)
				}
				w := uint16(weight)
				t.Weight = &w
			}
			t.Checks = checks.list()
			var err error
			if t.Ports, err = parsePorts(ports); err != nil {
				return err
			}
			if t.Meta, err = parsePairs("--meta", meta); err != nil {
				return err
			}
			return register([]api.App{{AppID: args[0], Target: t}})
		},
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&ips, "ip", nil, "address; repeatable")
	fs.StringVar(&t.Host, "host", "", "host name instead of an address")
	fs.StringVar(&t.ID, "id", "", "id in the service (default: the address, with the port)")
	fs.Uint16Var(&t.Port, "port", 0, "port")
	fs.StringSliceVar(&ports, "named-port", nil, "NAME=PORT or NAME=PORT/udp; repeatable")
	fs.StringVar(&t.Node, "node", "", "node it runs on")
	fs.StringSliceVar(&tags, "tag", nil, "label; repeatable")
	fs.StringArrayVar(&meta, "meta", nil, "KEY=VALUE; repeatable")
	fs.IntVar(&weight, "weight", 1, "share of the answers")
	fs.Uint16Var(&t.Priority, "priority", 0, "lower is used first")
	fs.StringVar(&t.Zone, "zone", "", "failure domain")
	fs.StringVar(&t.TTL, "ttl", "", "TTL of its answers, such as 5s")
	fs.StringVar(&t.Expires, "expires", "", "remove it after this long, such as 10m")
	fs.StringVar(&file, "file", "", "file with one registration or an array, as POST /v1/apps takes it; - for standard input")
	checks.add(cmd)
	wf.add(cmd)
	ef.add(cmd)
	return cmd
}

// checkFlags are the health checks that a registration on the command line can
// have; one in a file can have more.
type checkFlags struct{ http, tcp, grpc, ttl, interval, deregisterAfter string }

func (f *checkFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.http, "check-http", "", "URL that the agent asks; 2xx is passing")
	fs.StringVar(&f.tcp, "check-tcp", "", "HOST:PORT that the agent connects to")
	fs.StringVar(&f.grpc, "check-grpc", "", "HOST:PORT[/SERVICE] that the agent asks (grpc.health.v1)")
	fs.StringVar(&f.ttl, "check-ttl", "", "how long after a heartbeat the next must come, such as 10s")
	fs.StringVar(&f.interval, "check-interval", "", "between two checks (default 10s)")
	fs.StringVar(&f.deregisterAfter, "deregister-after", "", "remove it once a check has failed for this long, such as 1h")
}

func (f *checkFlags) list() []api.Check {
	var out []api.Check
	for _, c := range []api.Check{{HTTP: f.http}, {TCP: f.tcp}, {GRPC: f.grpc}, {TTL: f.ttl}} {
		if c == (api.Check{}) {
			continue
		}
		if c.TTL == "" {
			c.Interval = f.interval
		}
		c.DeregisterAfter = f.deregisterAfter
		out = append(out, c)
	}
	return out
}

func readApps(stdin io.Reader, file string) ([]api.App, error) {
	r := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(strings.TrimSpace(string(b)), "[") {
		b = append(append([]byte{'['}, b...), ']')
	}
	var apps []api.App
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&apps); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return apps, nil
}

func parsePorts(list []string) (map[string]api.PortNumber, error) {
	pairs, err := parsePairs("--named-port", list)
	if len(pairs) == 0 {
		return nil, err
	}
	out := map[string]api.PortNumber{}
	for name, s := range pairs {
		var p api.PortNumber
		if err := p.UnmarshalJSON([]byte(strconv.Quote(s))); err != nil {
			return nil, usageError("--named-port %s=%s: %w; use NAME=PORT or NAME=PORT/udp", name, s, err)
		}
		out[name] = p
	}
	return out, nil
}

func parsePairs(flag string, list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usageError("%s %s is not KEY=VALUE", flag, kv)
		}
		out[k] = v
	}
	return out, nil
}

func (c *ctl) register(ctx context.Context, apps []api.App, opt *api.WriteOptions) error {
	var done []api.Registered
	err := c.write(ctx, opt, func(ctx context.Context, cl *api.Client) (err error) {
		done, err = cl.Register(ctx, apps, opt)
		return err
	})
	if err != nil {
		return err
	}
	err = printAs(c, done, func(w io.Writer, done []api.Registered) {
		row(w, "SERVICE", "ID", "CLASS", "INDEX")
		for _, r := range done {
			row(w, r.Service, r.ID, r.Class, r.Index)
		}
	})
	if err != nil || len(done) == 0 {
		return err
	}
	return c.spread(done[0].Spread) // one write, one spread
}

func (c *ctl) deregisterCmd() *cobra.Command {
	var wf writeFlags
	var force bool
	cmd := &cobra.Command{
		Use:               "deregister SERVICE[/ID]...",
		Short:             "Remove critical services, or single instances of either class",
		Args:              needArgs("name what to remove: fluidctl deregister checkout/10.0.0.9"),
		ValidArgsFunction: c.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			removed := []removal{}
			for _, arg := range args {
				t, err := parseTarget(arg)
				if err != nil {
					return err
				}
				if t.node != "" {
					return usageError("%s: only services and instances can be removed", arg)
				}
				r, err := c.remove(cmd.Context(), t, wf.options(c), force)
				if err != nil {
					return fmt.Errorf("%s: %w", arg, err)
				}
				removed = append(removed, r)
			}
			err := printAs(c, removed, func(w io.Writer, list []removal) {
				row(w, "REMOVED", "ID", "INDEX")
				for _, r := range list {
					row(w, r.Service, r.ID, r.at())
				}
			})
			if err != nil {
				return err
			}
			return c.spread(removed[len(removed)-1].Spread)
		},
	}
	wf.add(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "remove an ephemeral instance also if its agent does not answer")
	return cmd
}

func needArgs(text string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError("%s", text)
		}
		return nil
	}
}

// target is what a command acts on.
type target struct{ service, instance, node string }

// parseTarget reads SERVICE, SERVICE/ID, service:NAME or node:NAME.
func parseTarget(s string) (target, error) {
	if name, ok := strings.CutPrefix(s, "node:"); ok && name != "" {
		return target{node: name}, nil
	}
	if name, ok := strings.CutPrefix(s, "service:"); ok && name != "" && !strings.Contains(name, "/") {
		return target{service: name}, nil
	}
	service, id, hasID := strings.Cut(s, "/")
	if service == "" || hasID && id == "" || strings.ContainsAny(service, ": ") {
		return target{}, usageError("%q is not a target; use SERVICE, SERVICE/ID, service:NAME or node:NAME", s)
	}
	return target{service: service, instance: id}, nil
}
