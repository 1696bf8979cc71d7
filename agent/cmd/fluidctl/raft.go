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
			cobra.MatchAll(needArgs("name the server: fluidctl raft remove node3"), cobra.ExactArgs(1)), (*api.Client).Remove))
	return cmd
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
