package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/plugin/record"
)

// ephemeralFlags are the conditions of an ephemeral registration.
type ephemeralFlags struct {
	on, takeover bool
	ack          string
}

func (f *ephemeralFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.on, "ephemeral", false, "let the agent vouch for it, without a commit; it goes with its node")
	cmd.Flags().BoolVar(&f.takeover, "takeover", false, "with --ephemeral: also if another agent vouches for it")
	cmd.Flags().StringVar(&f.ack, "ack", "", "with --ephemeral: local, or mesh:K to wait for K other members (default local)")
}

// check refuses flags of the other class.
func (f *ephemeralFlags) check(cmd *cobra.Command) error {
	wrong, hint := []string{"takeover", "ack"}, "is for --ephemeral"
	if f.on {
		wrong, hint = []string{"wait", "if-match", "idempotency-key"}, "is not for --ephemeral"
	}
	for _, name := range wrong {
		if cmd.Flags().Changed(name) {
			return usageError("--%s %s", name, hint)
		}
	}
	return nil
}

// vouch registers ephemeral instances, one after the other.
func (c *ctl) vouch(ctx context.Context, apps []api.App, f *ephemeralFlags) error {
	opt := &api.EphemeralOptions{Ack: f.ack, Takeover: f.takeover}
	if f.ack != "" {
		opt.Timeout = (c.timeout * 9 / 10).String()
	}
	done := []api.Vouched{}
	err := c.read(ctx, func(ctx context.Context, cl *api.Client) error {
		for _, app := range apps {
			v, err := cl.PutInstance(ctx, app.AppID, app.Target, opt)
			if err != nil {
				return err
			}
			done = append(done, v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return printAs(c, done, func(w io.Writer, done []api.Vouched) {
		row(w, "SERVICE", "ID", "CLASS", "VERSION")
		for _, v := range done {
			row(w, v.Service, v.ID, v.Class, v.Version)
		}
	})
}

// removal is what deregister shows of either class.
type removal struct {
	api.Removed
	Version string `json:"version,omitempty"`
	Owner   string `json:"owner,omitempty"`
	Killed  bool   `json:"killed,omitempty"`
}

// remove removes a service or an instance, by the class that the agent knows
// of it.
func (c *ctl) remove(ctx context.Context, t target, opt *api.WriteOptions, force bool) (r removal, err error) {
	err = c.write(ctx, opt, func(ctx context.Context, cl *api.Client) error {
		var err error
		s, unknown := cl.Service(ctx, t.service, api.Filter{}) // the removal itself says what is wrong
		switch {
		case unknown == nil && s.Class == record.ClassEphemeral.String():
			r, err = withdraw(ctx, cl, t, s, force)
		case t.instance == "":
			r.Removed, err = cl.Deregister(ctx, t.service, opt)
		default:
			r.Removed, err = cl.DeregisterInstance(ctx, t.service, t.instance, opt)
		}
		return err
	})
	return r, err
}

func withdraw(ctx context.Context, cl *api.Client, t target, s api.Service, force bool) (removal, error) {
	if t.instance == "" {
		if len(s.Instances) == 0 {
			return removal{}, usageError("%s is ephemeral and has no instance left; its name goes by itself", t.service)
		}
		return removal{}, usageError("%s is ephemeral; name the instance, such as %s/%s", t.service, t.service, s.Instances[0].ID)
	}
	v, err := cl.DeleteInstance(ctx, t.service, t.instance, &api.EphemeralOptions{Force: force})
	return removal{Removed: api.Removed{Service: v.Service, ID: v.ID}, Version: v.Version, Owner: v.Owner, Killed: v.Killed}, err
}

// at says when a removal happened: at an index, or in which version.
func (r *removal) at() any {
	switch {
	case r.Killed:
		return "killed"
	case r.Version != "":
		return r.Version
	}
	return r.Index
}
