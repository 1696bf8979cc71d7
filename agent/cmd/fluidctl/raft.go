package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/api"
)

func (c *ctl) raftCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "raft", Short: "Look at consensus and change its servers", Args: cobra.NoArgs}
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "List the servers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error {
				r, err := cl.Raft(ctx)
				if err != nil {
					return err
				}
				return printAs(c, r, func(w io.Writer, r api.Raft) {
					row(w, "NAME", "ID", "ADDRESS", "SUFFRAGE", "LEADER", "HEALTHY")
					for _, s := range r.Servers {
						row(w, s.Name, s.ID, s.Addr, s.Suffrage, s.Leader, s.Healthy)
					}
				})
			})
		},
	}, c.serverCmd("transfer [SERVER]", "Hand leadership to a server, or to the best one", cobra.MaximumNArgs(1), (*api.Client).Transfer),
		c.serverCmd("remove SERVER", "Remove a server, by name or id",
			cobra.MatchAll(needArgs("name the server: fluidctl raft remove node3"), cobra.ExactArgs(1)), (*api.Client).Remove),
		c.joinCmd())
	return cmd
}

// joinCmd makes an agent that is part of no cluster a server of one. The
// cluster asks nothing of the agent that the agent does not tell everybody, so
// the operator can carry its request.
func (c *ctl) joinCmd() *cobra.Command {
	return &cobra.Command{
		Use: "join URL", Short: "Take this agent into the cluster of the agent at URL",
		Long: "Take this agent into the cluster of the agent at URL, any of it, as RAFT_JOIN_URL does at a start.\n" +
			"The operator token must be that of the cluster. Joining again changes nothing.",
		Example: "  fluidctl --addr http://10.0.0.4:18080 raft join http://10.0.0.1:18080",
		Args:    cobra.MatchAll(needArgs("name an agent of the cluster: fluidctl raft join http://10.0.0.1:18080"), cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			there, err := c.clientOf(args[0])
			if err != nil {
				return err
			}
			return c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error {
				here, err := cl.Raft(ctx)
				if err != nil {
					return err
				}
				joined, err := there.Join(ctx, here.Self)
				if err != nil {
					return fmt.Errorf("join through %s: %w", args[0], err)
				}
				return printAs(c, joined, func(w io.Writer, j api.Joined) {
					row(w, "NAME", "ID", "ADDRESS", "SUFFRAGE", "CLUSTER")
					for _, s := range j.Servers {
						row(w, s.Name, s.ID, s.Addr, s.Suffrage, j.ClusterID)
					}
				})
			})
		},
	}
}

// serverCmd is a change of one server, which the leader makes.
func (c *ctl) serverCmd(use, short string, args cobra.PositionalArgs, f func(*api.Client, context.Context, string) (api.ServerRef, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args,
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			_ = c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error { // no agent, no completion
				r, err := cl.Raft(ctx)
				for _, s := range r.Servers {
					names = append(names, s.Name)
				}
				return err
			})
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			server := ""
			if len(args) > 0 {
				server = args[0]
			}
			return c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error {
				done, err := f(cl, ctx, server)
				if err != nil {
					return fmt.Errorf("%s: %w", cmd.CommandPath(), err)
				}
				return printAs(c, done, func(w io.Writer, r api.ServerRef) {
					row(w, "SERVER")
					row(w, r.Server)
				})
			})
		},
	}
}
