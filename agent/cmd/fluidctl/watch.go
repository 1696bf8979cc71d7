package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/api"
)

// errEnough ends a watch that has shown as many events as were asked for.
var errEnough = errors.New("enough")

func (c *ctl) watchCmd() *cobra.Command {
	var after string
	var count int
	cmd := &cobra.Command{
		Use: "watch", Short: "Show changes as they come, until it is interrupted", Args: cobra.NoArgs,
		Long: `Show changes as they come, until it is interrupted: of services, instances and
overlays, of members, and of the servers of consensus. JSON output is one
object per line. A reset says that the past is not known any more. Of what only
gossip carries, ephemeral instances among it, the service is named.`,
		Example: "  fluidctl watch\n  fluidctl watch --after 1:42 -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 0 {
				return usageError("--count %d is below 0", count)
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			seen := 0
			err = cl.Watch(cmd.Context(), after, func(ev api.Event) error {
				after = fmt.Sprintf("%d:%d", ev.Generation, ev.Index)
				if err := c.event(after, ev); err != nil {
					return err
				}
				if seen++; seen == count {
					return errEnough
				}
				return nil
			})
			switch {
			case errors.Is(err, errEnough), errors.Is(err, context.Canceled):
				return nil
			case errors.Is(err, io.EOF) && after != "":
				return fmt.Errorf("the agent ended the stream; go on with --after %s", after)
			case errors.Is(err, io.EOF):
				return errors.New("the agent ended the stream")
			}
			return c.explain(err)
		},
	}
	cmd.Flags().StringVar(&after, "after", "", "GENERATION:INDEX after which to start (default: now)")
	cmd.Flags().IntVar(&count, "count", 0, "end after this many events; 0: never")
	return cmd
}

// event prints one event at once.
func (c *ctl) event(at string, ev api.Event) error {
	switch c.output {
	case "json":
		return json.NewEncoder(c.stdout).Encode(ev)
	case "yaml":
		if _, err := fmt.Fprintln(c.stdout, "---"); err != nil {
			return err
		}
		return writeYAML(c.stdout, ev)
	}
	what, name := "set", ev.Service
	if ev.Deleted {
		what = "removed"
	}
	switch {
	case ev.Kind == "reset":
		what, name = "everything may have changed", "-"
	case ev.State != "":
		name = ev.Name
		if !ev.Deleted {
			what = ev.State
		}
	case ev.Tier == "gossip":
		what = "changed by gossip"
	case ev.Service == "":
		name = ev.ID
	case ev.ID != "":
		name += "/" + ev.ID
	}
	_, err := fmt.Fprintf(c.stdout, "%-10s  %-8s  %-32s  %s\n", at, ev.Kind, name, what)
	return err
}
