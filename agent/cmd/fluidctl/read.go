package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
)

func filterFlags(cmd *cobra.Command, f *api.Filter) {
	cmd.Flags().StringVar(&f.Tag, "tag", "", "only with this tag")
	cmd.Flags().StringVar(&f.Zone, "zone", "", "only in this zone")
	cmd.Flags().StringVar(&f.Status, "status", "", "only of this status")
}

func (c *ctl) listCmd() *cobra.Command {
	var f api.Filter
	cmd := &cobra.Command{
		Use: "list", Short: "List services", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error {
				list, err := cl.Services(ctx, f)
				if err != nil {
					return err
				}
				return printAs(c, list, func(w io.Writer, list []api.ServiceSummary) {
					row(w, "SERVICE", "CLASS", "INSTANCES", "PASSING", "TAGS")
					for _, s := range list {
						row(w, s.Service, s.Class, s.InstanceCount, s.PassingCount, strings.Join(s.Tags, ","))
					}
				})
			})
		},
	}
	filterFlags(cmd, &f)
	return cmd
}

func (c *ctl) getCmd() *cobra.Command {
	var f api.Filter
	cmd := &cobra.Command{
		Use: "get SERVICE[/ID]", Short: "Show a service and its instances",
		Args:              cobra.MatchAll(needArgs("name the service: fluidctl get checkout"), cobra.ExactArgs(1)),
		ValidArgsFunction: c.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			if t.service == "" {
				return usageError("%s is not a service", args[0])
			}
			return c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error {
				s, err := cl.Service(ctx, t.service, f)
				if err != nil {
					return err
				}
				if t.instance != "" {
					s.Instances = slices.DeleteFunc(s.Instances, func(in api.Instance) bool { return in.ID != t.instance })
					if len(s.Instances) == 0 {
						return fmt.Errorf("%w: service %s has no instance %s", store.ErrNotFound, t.service, t.instance)
					}
				}
				return printAs(c, s, serviceTable)
			})
		},
	}
	filterFlags(cmd, &f)
	return cmd
}

func serviceTable(w io.Writer, s api.Service) {
	row(w, "ID", "ADDRESS", "PORT", "STATUS", "ANSWERED", "WEIGHT", "NODE", "ZONE", "TAGS")
	for _, in := range s.Instances {
		addr, port, answered := strings.Join(in.IPs, ","), "", "yes"
		if in.Host != "" {
			addr = in.Host
		}
		if in.Port != 0 {
			port = fmt.Sprint(in.Port)
		}
		if !in.Answered {
			answered = in.Reason
		}
		row(w, in.ID, addr, port, in.Status, answered, in.Weight, in.Node, in.Zone, strings.Join(in.Tags, ","))
	}
}

// completeServices completes the name of a service.
func (c *ctl) completeServices(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var names []string
	_ = c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error { // no agent, no completion
		list, err := cl.Services(ctx, api.Filter{})
		for _, s := range list {
			if strings.HasPrefix(s.Service, prefix) {
				names = append(names, s.Service)
			}
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

// status is what fluidctl status shows.
type status struct {
	Addr  string     `json:"addr"`
	Ready api.Health `json:"ready"`
	Raft  api.Raft   `json:"raft"`
}

func (c *ctl) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show whether the agent is ready, and its part in consensus", Args: cobra.NoArgs,
		Long: "Show whether the agent is ready, and its part in consensus. Exits 1 if it is not ready.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			st := status{Addr: c.addr}
			err := c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) (err error) {
				if st.Ready, err = cl.Ready(ctx); err == nil {
					st.Raft, err = cl.Raft(ctx)
				}
				return err
			})
			if err != nil {
				return err
			}
			if err := printAs(c, st, statusTable); err != nil {
				return err
			}
			if st.Ready.Status != "ready" {
				return &exitError{exitFailed, fmt.Errorf("the agent is not ready: %s", strings.Join(st.Ready.Reasons, "; "))}
			}
			return nil
		},
	}
}

func statusTable(w io.Writer, st status) {
	leader := st.Raft.Leader.Name
	if leader == "" {
		leader = "none known: writes are refused, DNS goes on"
	}
	row(w, "agent", st.Addr)
	row(w, "status", st.Ready.Status)
	row(w, "raft", st.Raft.State)
	row(w, "leader", leader)
	row(w, "applied", fmt.Sprintf("%d:%d", st.Raft.Generation, st.Raft.AppliedIndex))
	row(w, "cluster", st.Raft.ClusterID)
	checks := make([]string, 0, len(st.Ready.Checks))
	for k := range st.Ready.Checks {
		if k != "leader" { // shown above
			checks = append(checks, k)
		}
	}
	slices.Sort(checks)
	for _, k := range checks {
		row(w, k, st.Ready.Checks[k])
	}
}

func (c *ctl) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return printAs(c, versionInfo(), versionTable) },
	}
}

func versionTable(w io.Writer, v api.VersionInfo) {
	_, _ = fmt.Fprintf(w, "fluidctl %s\n", v) // the tabwriter keeps its first error for Flush
}
