package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/pki"
)

// made lists the files that a command wrote.
type made struct {
	Files []string `json:"files"`
}

func (c *ctl) tlsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tls", Short: "Make the keys of a cluster, for people who have none", Args: cobra.NoArgs,
		Long: "Make the keys of a cluster, for people who have none. tls init makes an authority, a join secret and\n" +
			"an operator token, once; tls issue makes the certificate of one server. Keep ca.key off the servers.",
	}
	cmd.AddCommand(c.tlsInitCmd(), c.tlsIssueCmd())
	return cmd
}

func (c *ctl) tlsInitCmd() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "init", Short: "Make an authority, a join secret and an operator token", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ca, err := pki.NewCA(time.Now())
			if err != nil {
				return err
			}
			cert, key, err := ca.PEM()
			if err != nil {
				return err
			}
			secret, err := pki.NewSecret()
			if err != nil {
				return err
			}
			token, err := pki.NewSecret()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			return c.make(
				pki.File{Path: filepath.Join(dir, "ca.crt"), Mode: pki.PublicMode, Data: cert},
				pki.File{Path: filepath.Join(dir, "ca.key"), Mode: pki.SecretMode, Data: key},
				pki.File{Path: filepath.Join(dir, "join-secret"), Mode: pki.SecretMode, Data: secret},
				pki.File{Path: filepath.Join(dir, "token"), Mode: pki.SecretMode, Data: token},
			)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "where to write")
	return cmd
}

func (c *ctl) tlsIssueCmd() *cobra.Command {
	var dir, id string
	var ips, hosts []string
	var validity time.Duration
	cmd := &cobra.Command{
		Use: "issue NAME", Short: "Make the certificate of the server with this RAFT_ID",
		Example: "  fluidctl tls issue node1 --ip 10.0.0.1 --host node1.example.org",
		Args:    cobra.MatchAll(needArgs("name the server by its RAFT_ID: fluidctl tls issue node1 --ip 10.0.0.1"), cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			req := pki.Request{Identity: pki.Identity{Name: args[0], ID: id}, Hosts: hosts, Validity: validity}
			for _, s := range ips {
				a, err := netip.ParseAddr(s)
				if err != nil {
					return usageError("--ip %s is not an address", s)
				}
				req.IPs = append(req.IPs, a)
			}
			if err := req.Identity.Validate(); err != nil {
				return &exitError{exitUsage, err}
			}
			ca, err := pki.ReadCA(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("%w; make an authority first: fluidctl tls init --dir %s", err, dir)
				}
				return err
			}
			cert, key, err := ca.Issue(req, time.Now())
			if err != nil {
				return err
			}
			return c.make(
				pki.File{Path: filepath.Join(dir, args[0]+".crt"), Mode: pki.PublicMode, Data: cert},
				pki.File{Path: filepath.Join(dir, args[0]+".key"), Mode: pki.SecretMode, Data: key},
			)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&dir, "dir", ".", "where the authority is, and where to write")
	fs.StringVar(&id, "id", "", "bind the certificate to this random server id as well")
	fs.StringSliceVar(&ips, "ip", []string{"127.0.0.1", "::1"}, "address of its HTTP interface; repeatable")
	fs.StringSliceVar(&hosts, "host", []string{"localhost"}, "host name of its HTTP interface; repeatable")
	fs.DurationVar(&validity, "validity", pki.CertValidity, "how long it is valid")
	return cmd
}

// make writes new files and lists them. It never replaces one.
func (c *ctl) make(files ...pki.File) error {
	if err := pki.WriteNew(files...); err != nil {
		return err
	}
	var m made
	for _, f := range files {
		m.Files = append(m.Files, f.Path)
	}
	return printAs(c, m, func(w io.Writer, m made) {
		for _, f := range m.Files {
			row(w, f)
		}
	})
}
