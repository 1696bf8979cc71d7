// Command fluid-agent runs the agent that stands beside each CoreDNS.
//
// Without a subcommand it runs until SIGINT or SIGTERM. Exit codes: 0 stopped
// as asked, 1 failed while running, 2 wrong usage or configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

// stopTimeout bounds a planned stop; systemd and compose kill after 10 s to 90 s.
const stopTimeout = 10 * time.Second

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)) }

// run is the program without the process around it.
func run(args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &program{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	root := p.command()
	root.SetArgs(oneDash(args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	for line := range strings.Lines(err.Error()) {
		_, _ = fmt.Fprintln(stderr, "fluid-agent:", strings.TrimSuffix(line, "\n"))
	}
	var ue *usageError
	var ce *agent.ConfigError
	if errors.As(err, &ue) || errors.As(err, &ce) {
		return exitUsage
	}
	return exitFailed
}

// oneDash accepts -version and -config as they were written before cobra.
func oneDash(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if a == "-version" || a == "-config" || strings.HasPrefix(a, "-config=") {
			out[i] = "-" + a
		}
	}
	return out
}

// usageError is an error of the command line or of the configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

type program struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

func (p *program) command() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "fluid-agent",
		Short: "Take registrations, agree on them with Raft, and stream them to the CoreDNS of this host",
		Long: "Take registrations, agree on them with Raft, and stream them to the CoreDNS of this host.\n\n" +
			"Every flag has a variable and a key in the YAML file; a flag wins over the variable, that over the file.",
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return p.version()
			}
			return p.serve(cmd)
		},
	}
	root.Flags().BoolVar(&version, "version", false, "print the version")
	agent.Flags(root.PersistentFlags())
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w\nrun fluid-agent --help", err)}
	})
	noArgs := func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return &usageError{fmt.Errorf("unknown command %q; run fluid-agent --help", args[0])}
		}
		return nil
	}
	root.Args = noArgs
	root.AddCommand(
		&cobra.Command{
			Use: "validate", Short: "Check the configuration without starting", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := p.config(cmd)
				if err != nil {
					return err
				}
				role := "server"
				if cfg.Raft.Role == "client" {
					role = "client"
				}
				_, err = fmt.Fprintf(p.stdout, "the configuration is valid: %s %s, data in %s, socket %s\n",
					role, cfg.RaftID(), cfg.DataDirOrDefault(), cfg.SocketOrDefault())
				return err
			},
		},
		&cobra.Command{
			Use: "version", Short: "Print the version", Args: noArgs,
			RunE: func(*cobra.Command, []string) error { return p.version() },
		},
		p.resetCommand(),
	)
	return root
}

func (p *program) version() error {
	_, err := fmt.Fprintf(p.stdout, "fluid-agent %s\n", api.Version())
	return err
}

// config loads and checks the configuration; warnings go to standard error.
func (p *program) config(cmd *cobra.Command) (agent.Config, error) {
	cfg, warnings, err := agent.Load(cmd.Flags(), p.environ)
	for _, w := range warnings {
		_, _ = fmt.Fprintln(p.stderr, "fluid-agent: warning:", w)
	}
	if err == nil {
		err = cfg.Validate()
	}
	if err != nil {
		return cfg, &usageError{err}
	}
	return cfg, nil
}

func (p *program) serve(cmd *cobra.Command) error {
	cfg, err := p.config(cmd)
	if err != nil {
		return err
	}
	return agent.Run(cmd.Context(), cfg, newLogger(p.stderr, cfg), stopTimeout)
}

func newLogger(w io.Writer, cfg agent.Config) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.LogLevel)) // Validate checked it
	opts := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func (p *program) resetCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "reset", Short: "Wipe the data directory on purpose",
		Long: "Wipe the data directory on purpose: the agent forgets its cluster, its identity and all state.\n" +
			"On the only server of a cluster this destroys everything that was registered.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.config(cmd)
			if err != nil {
				return err
			}
			dir := cfg.DataDirOrDefault()
			if !yes {
				return &usageError{fmt.Errorf("this would wipe %s; repeat with --yes", dir)}
			}
			if err := agent.Reset(dir); err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.stdout, "wiped %s\n", dir)
			return err
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "really do it")
	return cmd
}
