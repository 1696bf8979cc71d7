package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/pki"
)

// Names of the files that tls init makes.
const (
	caCertName     = "ca.pem"
	caKeyName      = "ca.key"
	joinSecretName = "join-secret"
	tokenName      = "operator-token"
)

// madeFile is a file that was written, or is needed beside it.
type madeFile struct {
	Path     string   `json:"path"`
	Settings []string `json:"settings"`
	Use      string   `json:"use"`
}

// madeFiles is the answer of tls init and tls issue.
type madeFiles struct {
	Files   []madeFile `json:"files"`
	Expires time.Time  `json:"expires"` // of the certificate
}

func (c *ctl) tlsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tls", Short: "Make keys and certificates for agents",
		Long: `Make what agents need to trust each other, where you have no certificate
authority of your own. Nothing is sent anywhere: files are made on this machine.

  fluidctl tls init --dir keys
  fluidctl tls issue --dir keys --name node1 --ip 10.0.0.1 --host node1.example.org
  fluidctl tls issue --dir keys --name node2 --ip 10.0.0.2 --host node2.example.org

Copy each agent its own certificate and key, and all of them ca.pem and
join-secret. Agents read new certificates without a restart.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(c.tlsInitCmd(), c.tlsIssueCmd())
	return cmd
}

func (c *ctl) tlsInitCmd() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "init", Short: "Make an authority, a join secret and an operator token",
		Example: "  fluidctl tls init --dir keys",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			made, err := tlsInit(dir, time.Now())
			if err != nil {
				return existing(err, "they are kept; choose another --dir")
			}
			return printAs(c, made, madeTable)
		},
	}
	keysDirFlag(cmd, &dir)
	return cmd
}

func (c *ctl) tlsIssueCmd() *cobra.Command {
	var dir, out string
	var ips []string
	var days int
	var req pki.Request
	cmd := &cobra.Command{
		Use: "issue [NAME]", Short: "Make a certificate for one agent",
		Long: `Make a certificate for one agent, for consensus and for its HTTP interface.

Other agents check who it is by --name, its RAFT_ID, or by --id, the random id of
its data directory (fluidctl raft list shows it). A certificate by name can be
made before the agent first starts and outlives a lost disk; one by id does not.
Users of the HTTP interface check --ip and --host: give every address and name
by which the agent is reached; those of loopback are always good.`,
		Example: `  fluidctl tls issue --dir keys --name node1 --ip 10.0.0.1 --host node1.example.org
  fluidctl tls issue --dir keys --name node1 --ip 10.0.0.1 --out renewed`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				if req.Identity.Name != "" {
					return usageError("give the name once: %s or --name %s", args[0], req.Identity.Name)
				}
				req.Identity.Name = args[0]
			}
			if err := checkRequest(&req, ips, days); err != nil {
				return err
			}
			if out == "" {
				out = dir
			}
			made, err := tlsIssue(dir, out, req, time.Now())
			if err != nil {
				return existing(err, "it is kept; to renew it, write the new one elsewhere with --out and copy it over")
			}
			return printAs(c, made, madeTable)
		},
	}
	fs := cmd.Flags()
	keysDirFlag(cmd, &dir)
	fs.StringVar(&out, "out", "", "directory for the new files (default: that of --dir)")
	fs.StringVar(&req.Identity.Name, "name", "", "name of the agent: its RAFT_ID (also as argument)")
	fs.StringVar(&req.Identity.ID, "id", "", "server id of the agent")
	fs.StringSliceVar(&ips, "ip", nil, "address of its HTTP interface, repeatable")
	fs.StringSliceVar(&req.Hosts, "host", nil, "host name of its HTTP interface, repeatable")
	fs.IntVar(&days, "days", int(pki.CertValidity/(24*time.Hour)), "days until it expires")
	return cmd
}

func keysDirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", "fluid-keys", "directory of the authority")
	_ = cmd.MarkFlagDirname("dir")
}

// checkRequest turns flags into a request; what cannot stand in a certificate
// is wrong usage.
func checkRequest(req *pki.Request, ips []string, days int) error {
	if req.Identity == (pki.Identity{}) {
		return usageError("say whose certificate it is: --name RAFT_ID or --id SERVER_ID")
	}
	if err := req.Identity.Validate(); err != nil {
		return usageError("%w", err)
	}
	for _, s := range ips {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" || ip.IsUnspecified() {
			return usageError("--ip %s is not an address of one host; a name goes to --host", s)
		}
		req.IPs = append(req.IPs, ip)
	}
	for _, h := range req.Hosts {
		if _, err := netip.ParseAddr(h); err == nil {
			return usageError("--host %s is an address; it goes to --ip", h)
		}
		if h == "" || len(h) > 253 || strings.ContainsAny(h, " /:@*") {
			return usageError("--host %q is not a host name", h)
		}
	}
	const century = 36500
	if days < 1 || days > century {
		return usageError("--days %d is not between 1 and %d", days, century)
	}
	req.IPs = append(req.IPs, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback())
	req.Hosts = append(req.Hosts, "localhost")
	req.Validity = time.Duration(days) * 24 * time.Hour
	return nil
}

// tlsInit makes an authority and secrets in dir.
func tlsInit(dir string, now time.Time) (madeFiles, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return madeFiles{}, err
	}
	ca, err := pki.NewCA(now)
	if err != nil {
		return madeFiles{}, err
	}
	cert, key, err := ca.PEM()
	if err != nil {
		return madeFiles{}, err
	}
	secret, err := pki.NewSecret()
	if err != nil {
		return madeFiles{}, err
	}
	token, err := pki.NewSecret()
	if err != nil {
		return madeFiles{}, err
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	err = pki.WriteNew(
		pki.File{Path: path(caCertName), Mode: pki.PublicMode, Data: cert},
		pki.File{Path: path(caKeyName), Mode: pki.SecretMode, Data: key},
		pki.File{Path: path(joinSecretName), Mode: pki.SecretMode, Data: secret},
		pki.File{Path: path(tokenName), Mode: pki.SecretMode, Data: token},
	)
	return madeFiles{Expires: now.Add(pki.CAValidity).UTC().Truncate(time.Second), Files: []madeFile{
		caFile(path(caCertName)),
		{path(caKeyName), []string{}, "signs certificates: SECRET, only here, never on an agent"},
		{path(joinSecretName), []string{"RAFT_JOIN_SECRET_FILE"}, "lets new servers join: SECRET, on every agent"},
		{path(tokenName), []string{"FLUID_TOKEN_FILE"}, "lets people write: SECRET, on every agent and for fluidctl"},
	}}, err
}

// tlsIssue makes a certificate of the authority in dir, in out.
func tlsIssue(dir, out string, req pki.Request, now time.Time) (madeFiles, error) {
	caCert := filepath.Join(dir, caCertName)
	ca, err := pki.ReadCA(caCert, filepath.Join(dir, caKeyName))
	if errors.Is(err, fs.ErrNotExist) {
		return madeFiles{}, fmt.Errorf("no authority in %s: %w\nmake one with fluidctl tls init, or name its directory with --dir", dir, err)
	}
	if err != nil {
		return madeFiles{}, err
	}
	cert, key, err := ca.Issue(req, now)
	if err != nil {
		return madeFiles{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return madeFiles{}, err
	}
	if err := os.MkdirAll(out, 0o700); err != nil {
		return madeFiles{}, err
	}
	base := req.Identity.Name
	if base == "" {
		base = req.Identity.ID
	}
	certPath, keyPath := filepath.Join(out, base+".pem"), filepath.Join(out, base+".key")
	err = pki.WriteNew(
		pki.File{Path: keyPath, Mode: pki.SecretMode, Data: key},
		pki.File{Path: certPath, Mode: pki.PublicMode, Data: cert},
	)
	return madeFiles{Expires: pair.Leaf.NotAfter.UTC(), Files: []madeFile{
		{certPath, []string{"RAFT_TLS_CERT_FILE", "FLUID_TLS_CERT_FILE"}, "says who the agent is: on that agent"},
		{keyPath, []string{"RAFT_TLS_KEY_FILE", "FLUID_TLS_KEY_FILE"}, "proves it: SECRET, only on that agent"},
		caFile(caCert),
	}}, err
}

func caFile(path string) madeFile {
	return madeFile{path, []string{"RAFT_TLS_CA_FILE", "FLUID_TLS_CA_FILE"}, "whom agents trust: on every agent"}
}

// existing adds to an error what to do about a file that is there already.
func existing(err error, fix string) error {
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w\n%s", err, fix)
	}
	return err
}

func madeTable(w io.Writer, m madeFiles) {
	row(w, "FILE", "SETTING", "USE")
	for _, f := range m.Files {
		row(w, f.Path, strings.Join(f.Settings, ", "), f.Use)
	}
	_, _ = fmt.Fprintf(w, "\nexpires %s\n", m.Expires.Format(time.RFC3339))
}
