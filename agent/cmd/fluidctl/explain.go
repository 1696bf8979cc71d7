package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/api"
)

func (c *ctl) explainCmd() *cobra.Command {
	var typ string
	cmd := &cobra.Command{
		Use: "explain NAME", Short: "Show what DNS answers to a name, and why each instance is in or out",
		Example:           "  fluidctl explain web\n  fluidctl explain v2.web.service.fluid.internal --type AAAA",
		Args:              cobra.MatchAll(needArgs("name it: fluidctl explain checkout"), cobra.ExactArgs(1)),
		ValidArgsFunction: c.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error {
				e, err := cl.Explain(ctx, args[0], typ)
				if err != nil {
					return err
				}
				return printAs(c, e, explainTable)
			})
		},
	}
	cmd.Flags().StringVarP(&typ, "type", "t", "", "record type (default: whatever the name has)")
	return cmd
}

func explainTable(w io.Writer, e api.Explanation) {
	switch {
	case e.Rcode == "NXDOMAIN":
		row(w, e.Name+": NXDOMAIN: there is no such name")
		return
	case e.Rcode == "NODATA":
		row(w, e.Name+": NODATA: it exists and nothing is answered")
	case e.Service == "":
		row(w, e.Name+": "+e.Note)
		return
	}
	row(w, "ID", "ANSWERED", "REASON", "STATUS", "TIER", "NODE", "OVERLAYS")
	for _, in := range e.Instances {
		yes := "no"
		if in.Answered {
			yes = "yes"
		}
		row(w, in.ID, yes, in.Reason, in.Status, in.Tier, in.Node, strings.Join(in.Overlays, ","))
	}
	if e.Note != "" {
		row(w, e.Note)
	}
}
