package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/api"
)

func (c *ctl) nodesCmd() *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "List the nodes whose agents write to the mesh", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) error {
				list, err := cl.Nodes(ctx)
				if err != nil {
					return err
				}
				return printAs(c, list, func(w io.Writer, list []api.Node) {
					row(w, "NAME", "STATE", "ZONE", "INSTANCES", "DNS", "VERSION", "ID")
					for _, n := range list {
						row(w, n.Name, n.State, n.Zone, n.Instances, strings.Join(n.Members, ","), n.Version, n.ID)
					}
				})
			})
		},
	}
}

func (c *ctl) keysCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "keys", Short: "Rotate the keys of the mesh", Args: cobra.NoArgs,
		Long: `Rotate the keys of the mesh. Each command acts on the one agent at --addr, and
on the file of its GOSSIP_KEY_HEX_FILE. A CoreDNS whose gossip_key is the same
file follows it within a second.

Add the new key at every host, then use it at every host, then remove the old
one at every host. Without a key file, a change lasts until the agent restarts.
Keys are shown by their ids.`,
	}
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "List the keys of the agent", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.keys(cmd.Context(), func(ctx context.Context, cl *api.Client) ([]api.Key, error) { return cl.Keys(ctx) })
		},
	})
	var file string
	add := &cobra.Command{
		Use: "add [--file FILE]", Short: "Add a key, read from a file or standard input, that decrypts", Args: cobra.NoArgs,
		Example: "  openssl rand -hex 32 | tee new.key | fluidctl keys add",
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := readKey(c.stdin, file)
			if err != nil {
				return err
			}
			return c.changeKeys(cmd.Context(), api.KeyChange{Action: "add", Key: key})
		},
	}
	add.Flags().StringVar(&file, "file", "-", "file with 32, 48 or 64 hex digits; - for standard input")
	cmd.AddCommand(add)
	for _, action := range []struct{ name, short string }{
		{"use", "Encrypt with a key of the ring"}, {"remove", "Remove a key that does not encrypt"},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: action.name + " ID", Short: action.short,
			Args: cobra.MatchAll(needArgs("give the id of the key: fluidctl keys list shows them"), cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, args []string) error {
				return c.changeKeys(cmd.Context(), api.KeyChange{Action: action.name, ID: args[0]})
			},
		})
	}
	return cmd
}

// readKey reads a key that is no argument: other users of a host can read
// command lines.
func readKey(stdin io.Reader, file string) (string, error) {
	const most = 4 << 10
	r := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, most))
	if err != nil {
		return "", fmt.Errorf("key: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (c *ctl) changeKeys(ctx context.Context, change api.KeyChange) error {
	return c.keys(ctx, func(ctx context.Context, cl *api.Client) ([]api.Key, error) { return cl.ChangeKeys(ctx, change) })
}

// keys prints the ring that f returns.
func (c *ctl) keys(ctx context.Context, f func(context.Context, *api.Client) ([]api.Key, error)) error {
	return c.read(ctx, func(ctx context.Context, cl *api.Client) error {
		keys, err := f(ctx, cl)
		if err != nil {
			return err
		}
		return printAs(c, keys, func(w io.Writer, keys []api.Key) {
			row(w, "KEY", "BITS", "USE")
			for _, k := range keys {
				use := "decrypts"
				if k.Primary {
					use = "encrypts"
				}
				row(w, k.ID, k.Bits, use)
			}
		})
	})
}
