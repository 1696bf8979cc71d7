package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/pki"
	"github.com/fluid-sd/fluid/agent/store"
)

const defaultAddr = "http://127.0.0.1:18080"

// ctl is one run of fluidctl: its streams and what the global flags say.
type ctl struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	addr, tokenFile, caFile, output string
	timeout                         time.Duration
}

func newRoot(c *ctl) *cobra.Command {
	var app, ip string
	var version bool
	root := &cobra.Command{
		Use:   "fluidctl",
		Short: "Register applications with a Fluid agent and look at what is registered",
		Long: `fluidctl talks to a Fluid agent over HTTP.

A target is SERVICE, SERVICE/ID, service:NAME or node:NAME.

  fluidctl register checkout --ip 10.0.0.9 --port 8080
  fluidctl -app checkout -ip 10.0.0.9`,
		SilenceErrors: true, SilenceUsage: true, SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError("%s is not a command%s", args[0], suggestion(cmd, args[0]))
			}
			return nil
		},
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains(formats, c.output) {
				return usageError("--output %s is not a format; use %s", c.output, strings.Join(formats, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case version:
				return printAs(c, versionInfo(), versionTable)
			case app == "" && ip == "":
				return cmd.Help()
			case app == "" || ip == "":
				return usageError("-app and -ip belong together: fluidctl -app checkout -ip 10.0.0.9")
			}
			return c.register(cmd.Context(), []api.App{{AppID: app, Target: api.Target{IP: ip}}}, &api.WriteOptions{})
		},
	}
	root.Flags().StringVar(&app, "app", "", "service to register (with --ip)")
	root.Flags().StringVar(&ip, "ip", "", "its address (with --app)")
	root.Flags().BoolVar(&version, "version", false, "print the version")
	fs := root.PersistentFlags()
	fs.StringVar(&c.addr, "addr", envOr("FLUID_ADDR", defaultAddr), "agent: http://HOST:PORT, https://HOST:PORT or unix:PATH (FLUID_ADDR)")
	fs.StringVar(&c.tokenFile, "token-file", os.Getenv("FLUID_TOKEN_FILE"), "file with the operator token (FLUID_TOKEN_FILE)")
	fs.StringVar(&c.caFile, "ca-file", os.Getenv("FLUID_TLS_CA_FILE"), "authorities of agents' certificates, PEM (FLUID_TLS_CA_FILE; default: those of the system)")
	fs.StringVarP(&c.output, "output", "o", "table", "table, json or yaml")
	fs.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long to try")
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError("%w\nrun %s --help", err, cmd.CommandPath())
	})
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(
		c.registerCmd(), c.deregisterCmd(), c.getCmd(), c.listCmd(), c.resolveCmd(), c.statusCmd(), c.versionCmd(),
		c.drainCmd(), c.undrainCmd(), c.evictCmd(), c.configCmd(), c.raftCmd(), c.doctorCmd(), c.tlsCmd(), c.snapshotCmd(), c.membersCmd(), c.explainCmd(),
		c.nodesCmd(), c.keysCmd(), c.watchCmd(),
	)
	wrapArgs(root)
	return root
}

// wrapArgs makes a wrong number of arguments an error of usage, everywhere.
func wrapArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			var ee *exitError
			if err == nil || errors.As(err, &ee) {
				return err
			}
			return usageError("%w\nrun %s --help", err, cmd.CommandPath())
		}
	}
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
}

func suggestion(cmd *cobra.Command, name string) string {
	if s := cmd.SuggestionsFor(name); len(s) > 0 {
		return "; did you mean " + strings.Join(s, " or ") + "?"
	}
	return "; fluidctl --help lists them"
}

func envOr(name, value string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return value
}

// client returns a client of the agent that the flags name.
func (c *ctl) client() (*api.Client, error) { return c.clientOf(c.addr) }

// clientOf returns a client of any agent, with the same token.
func (c *ctl) clientOf(addr string) (*api.Client, error) {
	token := ""
	if c.tokenFile != "" {
		b, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("token file: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	var hc *http.Client
	if c.caFile != "" {
		dial, err := pki.DialTLS(c.caFile)
		if err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
		hc = &http.Client{Transport: &http.Transport{DialTLSContext: dial, ForceAttemptHTTP2: true}}
	}
	cl, err := api.NewClient(addr, token, hc)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return cl, nil
}

// read calls f with a client and the time limit.
func (c *ctl) read(ctx context.Context, f func(context.Context, *api.Client) error) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.explain(f(ctx, cl))
}

// write calls f until it is done, is refused, or the time is up. All attempts
// carry one idempotency key, so that a change whose outcome got lost is not
// made twice.
func (c *ctl) write(ctx context.Context, opt *api.WriteOptions, f func(context.Context, *api.Client) error) error {
	if opt.IdempotencyKey == "" {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails (Go 1.24)
		opt.IdempotencyKey = "fluidctl-" + hex.EncodeToString(b[:])
	}
	return c.read(ctx, func(ctx context.Context, cl *api.Client) error {
		for {
			err := f(ctx, cl)
			var e *api.Error
			if !errors.As(err, &e) || (!errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUnknown)) {
				return err
			}
			timer := time.NewTimer(time.Duration(max(e.RetryAfter, 1)) * time.Second)
			select {
			case <-ctx.Done():
				timer.Stop()
				return err
			case <-timer.C:
			}
		}
	})
}

// explain adds to an error what the user can do about it.
func (c *ctl) explain(err error) error {
	var e *api.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from %s within %s", c.addr, c.timeout)
	case errors.Is(err, os.ErrNotExist), isRefused(err):
		return fmt.Errorf("no agent at %s: %w\nstart fluid-agent, or name another agent with --addr or FLUID_ADDR", c.addr, err)
	}
	return err
}

func versionInfo() api.VersionInfo { return api.Version() }
