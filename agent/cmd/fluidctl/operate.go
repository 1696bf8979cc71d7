package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/api"
)

func (c *ctl) drainCmd() *cobra.Command {
	return c.overlayCmd("drain", "drain TARGET", "Take a target out of new answers; connections go on")
}

func (c *ctl) evictCmd() *cobra.Command {
	return c.overlayCmd("deny", "evict TARGET", "Take a target out of the answers at once, until undrain")
}

func (c *ctl) overlayCmd(kind, use, short string) *cobra.Command {
	o := api.Overlay{Kind: kind}
	var wait bool
	cmd := &cobra.Command{
		Use: use, Short: short,
		Example:           "  fluidctl " + strings.Fields(use)[0] + " checkout/10.0.0.9 --reason upgrade --expires 30m",
		Args:              cobra.MatchAll(needArgs("name the target: SERVICE, SERVICE/ID or node:NAME"), cobra.ExactArgs(1)),
		ValidArgsFunction: c.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			o.Service, o.Instance, o.Node = t.service, t.instance, t.node
			opt := &api.WriteOptions{}
			c.everywhere(opt, wait)
			var placed api.Placed
			err = c.write(cmd.Context(), opt, func(ctx context.Context, cl *api.Client) (err error) {
				placed, err = cl.CreateOverlay(ctx, o, opt)
				return err
			})
			if err != nil {
				return err
			}
			err = printAs(c, placed, func(w io.Writer, p api.Placed) {
				row(w, "OVERLAY", "TARGET", "INDEX")
				row(w, p.ID, args[0], p.Index)
			})
			if err != nil || !wait {
				return err
			}
			return c.spread(&placed.Spread)
		},
	}
	waitFlag(cmd, &wait)
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why, for those who look later")
	cmd.Flags().StringVar(&o.Expires, "expires", "", "lift it after this long, such as 30m")
	return cmd
}

// waitFlag adds the flag of changes that can be waited for.
func waitFlag(cmd *cobra.Command, wait *bool) {
	cmd.Flags().BoolVar(wait, "wait", false, "until every DNS server has applied it; exits 3 if that takes longer than --timeout")
}

// everywhere makes a write wait for every DNS server, a little less long than
// the client itself waits.
func (c *ctl) everywhere(opt *api.WriteOptions, wait bool) {
	if wait {
		opt.Wait, opt.Timeout = "everywhere", min(c.timeout*9/10, time.Minute).String()
	}
}

// spread says on standard error how far a write has got. It is done in any
// case; one that is not everywhere exits 3.
func (c *ctl) spread(sp *api.Spread) error {
	if sp == nil {
		return nil
	}
	if !sp.Everywhere {
		return &exitError{exitLagging, fmt.Errorf("done, but not everywhere yet: %s", strings.Join(sp.Lagging, ", "))}
	}
	_, err := fmt.Fprintf(c.stderr, "everywhere; caches behind the DNS servers may hold the old answer for %s\n", sp.ClientTTL)
	return err
}

func (c *ctl) undrainCmd() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use: "undrain TARGET|OVERLAY", Short: "Lift every drain and eviction of a target, or one overlay by its id",
		Args:              cobra.MatchAll(needArgs("name the target: SERVICE, SERVICE/ID, node:NAME, or an overlay's id"), cobra.ExactArgs(1)),
		ValidArgsFunction: c.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			var all []api.Overlay
			err = c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) (err error) {
				all, err = cl.Overlays(ctx)
				return err
			})
			if err != nil {
				return err
			}
			lifted := []api.Removed{}
			for _, o := range all {
				onTarget := o.Service == t.service && o.Instance == t.instance && o.Node == t.node &&
					(o.Kind == "drain" || o.Kind == "deny")
				if !onTarget && o.ID != args[0] {
					continue
				}
				opt := &api.WriteOptions{}
				c.everywhere(opt, wait)
				var r api.Removed
				err := c.write(cmd.Context(), opt, func(ctx context.Context, cl *api.Client) (err error) {
					r, err = cl.DeleteOverlay(ctx, o.ID, opt)
					return err
				})
				if err != nil {
					return fmt.Errorf("overlay %s: %w", o.ID, err)
				}
				lifted = append(lifted, r)
			}
			if len(lifted) == 0 {
				return fmt.Errorf("nothing drains or evicts %s", args[0])
			}
			err = printAs(c, lifted, func(w io.Writer, list []api.Removed) {
				row(w, "LIFTED", "INDEX")
				for _, r := range list {
					row(w, r.ID, r.Index)
				}
			})
			if err != nil {
				return err
			}
			return c.spread(lifted[len(lifted)-1].Spread) // the last one went on top of the others
		},
	}
	waitFlag(cmd, &wait)
	return cmd
}

func (c *ctl) configCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show or change the settings of a service", Args: cobra.NoArgs}
	show := func(w io.Writer, s api.ServiceConfig) {
		guard := s.Guard == nil || *s.Guard
		row(w, "CLASS", "TTL", "NEGATIVE TTL", "SERVE STALE", "ANSWER LIMIT", "GUARD")
		row(w, s.Class, s.TTL, s.NegativeTTL, s.ServeStale, s.AnswerLimit, guard)
	}
	one := cobra.MatchAll(needArgs("name the service"), cobra.ExactArgs(1))
	cmd.AddCommand(&cobra.Command{
		Use: "get SERVICE", Short: "Show the settings", Args: one, ValidArgsFunction: c.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error {
				s, err := cl.ServiceConfig(ctx, args[0])
				if err != nil {
					return err
				}
				return printAs(c, s, show)
			})
		},
	})
	var want api.ServiceConfig
	var guard bool
	var wf writeFlags
	set := &cobra.Command{
		Use: "set SERVICE", Short: "Replace the settings; those not given are as the zone says", Args: one,
		ValidArgsFunction: c.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("guard") {
				want.Guard = &guard
			}
			opt := wf.options(c)
			var done api.Registered
			err := c.write(cmd.Context(), opt, func(ctx context.Context, cl *api.Client) (err error) {
				done, err = cl.PutServiceConfig(ctx, args[0], want, opt)
				return err
			})
			if err != nil {
				return err
			}
			err = printAs(c, done, func(w io.Writer, r api.Registered) {
				row(w, "SERVICE", "CLASS", "INDEX")
				row(w, r.Service, r.Class, r.Index)
			})
			if err != nil {
				return err
			}
			return c.spread(done.Spread)
		},
	}
	fs := set.Flags()
	fs.StringVar(&want.Class, "class", "", "critical or ephemeral")
	fs.StringVar(&want.TTL, "ttl", "", "TTL of the answers")
	fs.StringVar(&want.NegativeTTL, "negative-ttl", "", "TTL of negative answers")
	fs.StringVar(&want.ServeStale, "serve-stale", "", "how long answers go on without news, or forever")
	fs.Uint16Var(&want.AnswerLimit, "answer-limit", 0, "instances in one answer; 0: all")
	fs.BoolVar(&guard, "guard", true, "keep the last known good when most instances fail at once")
	wf.add(set)
	cmd.AddCommand(set)
	return cmd
}
