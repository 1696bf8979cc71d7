package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/pki"
)

// restoreTime is how long to wait for a restore where --timeout is not given.
const restoreTime = 3 * time.Minute

func (c *ctl) snapshotCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot", Short: "Back up, look into and restore what is committed", Args: cobra.NoArgs}
	file := cobra.MatchAll(needArgs("name the file: fluidctl snapshot save backup.snap"), cobra.ExactArgs(1))
	cmd.AddCommand(&cobra.Command{
		Use: "save FILE", Short: "Write a snapshot to a new file", Args: file,
		Long: "Write a snapshot to a new file. It holds the cluster's private key: keep it as you keep the key of a certificate authority.",
		RunE: func(cmd *cobra.Command, args []string) error {
			var data []byte
			err := c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) (err error) {
				data, err = cl.SaveSnapshot(ctx)
				return err
			})
			if err != nil {
				return err
			}
			info, err := api.InspectSnapshot(bytes.NewReader(data)) // a backup that cannot be read is none
			if err != nil {
				return err
			}
			if err := pki.WriteNew(pki.File{Path: args[0], Mode: pki.SecretMode, Data: data}); err != nil {
				return err
			}
			return printAs(c, info, snapshotTable)
		},
	}, &cobra.Command{
		Use: "inspect FILE", Short: "Check a snapshot and show what is in it", Args: file,
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			info, err := api.InspectSnapshot(f)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return printAs(c, info, snapshotTable)
		},
	})
	var least uint64
	restore := &cobra.Command{
		Use: "restore FILE", Short: "Replace what is committed by a snapshot", Args: file,
		Long: "Replace what is committed by a snapshot, on every server at once. What was written after the snapshot is lost;\n" +
			"the generation rises, so that everybody takes the new state over whole. A million instances may take half a minute,\n" +
			"so more time is given than to other commands where --timeout does not say.",
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("timeout") {
				c.timeout = restoreTime
			}
			return c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error {
				done, err := cl.RestoreSnapshot(ctx, data, least)
				if err != nil {
					return err
				}
				return printAs(c, done, func(w io.Writer, r api.Restored) {
					row(w, "GENERATION", "INDEX")
					row(w, r.Generation, r.Index)
				})
			})
		},
	}
	restore.Flags().Uint64Var(&least, "least-generation", 0, "generation that the new one must reach, where members know a later one")
	cmd.AddCommand(restore)
	return cmd
}

func snapshotTable(w io.Writer, s api.SnapshotInfo) {
	row(w, "position", fmt.Sprintf("%d:%d", s.Generation, s.Index))
	row(w, "cluster", s.ClusterID)
	row(w, "time", s.Time)
	row(w, "services", s.Services)
	row(w, "instances", s.Instances)
	row(w, "entries", s.Entries)
	row(w, "hash", s.Hash)
}

func (c *ctl) membersCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "members", Short: "List agents and DNS members", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error {
				list, err := cl.Members(ctx)
				if err != nil {
					return err
				}
				return printAs(c, list, func(w io.Writer, list []api.Member) {
					row(w, "NAME", "ROLE", "STATE", "ADDRESS", "HOST", "ZONE", "APPLIED", "ID")
					for _, m := range list {
						applied := ""
						if m.AppliedIndex > 0 {
							applied = fmt.Sprint(m.AppliedIndex)
						}
						row(w, m.Name, m.Role, m.State, m.Addr, m.Host, m.Zone, applied, m.ID)
					}
				})
			})
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use: "forget ID", Short: "Take a DNS member that will not come back off the roster",
		Args: cobra.MatchAll(needArgs("give the id: fluidctl members lists them"), cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error {
				if err := cl.ForgetMember(ctx, args[0]); err != nil {
					return err
				}
				return printAs(c, api.ServerRef{Server: args[0]}, func(w io.Writer, r api.ServerRef) {
					row(w, "FORGOTTEN")
					row(w, r.Server)
				})
			})
		},
	})
	return cmd
}
