package agent

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fluid-sd/fluid/agent/pki"
	"github.com/fluid-sd/fluid/agent/raftnet"
)

// certificates are those of the agent's interfaces; nil where none is configured.
type certificates struct{ http, raft *pki.Reloader }

// soon is the time left at which an operator should act.
const soon = 30 * 24 * time.Hour

// openCertificates reads the configured files, which are followed from then on.
func (a *Agent) openCertificates() error {
	for _, c := range []struct {
		key   string
		files pki.Files
		to    **pki.Reloader
		fix   string
	}{
		{"tls_cert_file", pki.Files{Cert: a.cfg.TLSCertFile, Key: a.cfg.TLSKeyFile}, &a.certs.http, "give a PEM certificate and its key"},
		{"raft_tls_cert_file", pki.Files{Cert: a.cfg.Raft.TLSCertFile, Key: a.cfg.Raft.TLSKeyFile, CA: a.cfg.Raft.TLSCAFile}, &a.certs.raft, "issue one with fluidctl tls issue"},
	} {
		if c.files.Cert == "" {
			continue
		}
		r, err := pki.NewReloader(c.files, time.Now, a.log)
		if err != nil {
			return &ConfigError{c.key, c.files.Cert, "cannot be used: " + err.Error(), c.fix}
		}
		*c.to = r
		a.loop(c.key, func(ctx context.Context) { r.Run(ctx, pki.ReloadInterval) })
	}
	return nil
}

// each calls f for the certificates that are configured.
func (c certificates) each(f func(use string, r *pki.Reloader)) {
	if c.http != nil {
		f("http", c.http)
	}
	if c.raft != nil {
		f("raft", c.raft)
	}
}

// checks says what an operator should know of certificates.
func (c certificates) checks(into map[string]string) {
	c.each(func(use string, r *pki.Reloader) {
		text := "expires"
		if left := r.Left(); left <= 0 {
			text = "EXPIRED at"
		} else if left < soon {
			text = "expires SOON, at"
		}
		text += " " + r.NotAfter().UTC().Format(time.RFC3339)
		if err := r.Err(); err != nil {
			text += "; new files cannot be used: " + err.Error()
		}
		into[use+" certificate"] = text
	})
}

// connectionMetrics are those of certificates and of Raft's connections.
func (a *Agent) connectionMetrics() []prometheus.Collector {
	var out []prometheus.Collector
	a.certs.each(func(use string, r *pki.Reloader) {
		labels := prometheus.Labels{"use": use}
		out = append(out,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Namespace: "fluid", Name: "certificate_expiry_seconds", ConstLabels: labels,
				Help: "Seconds until the certificate in use, or an authority it needs, expires.",
			}, func() float64 { return r.Left().Seconds() }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Namespace: "fluid", Name: "certificate_reload_failed", ConstLabels: labels,
				Help: "1 if the files as they are on disk cannot be used; older ones are in use.",
			}, func() float64 { return boolFloat(r.Err() != nil) }))
	})
	if a.layer == nil {
		return out
	}
	raft := func(f func(raftnet.Stats) float64) func() float64 {
		return func() float64 { return f(a.layer.Stats()) }
	}
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "fluid", Subsystem: "raft_connections", Name: name, Help: help}
	}
	return append(out,
		prometheus.NewCounterFunc(prometheus.CounterOpts(opts("accepted_total", "Connections of other Raft servers accepted.")),
			raft(func(s raftnet.Stats) float64 { return float64(s.Accepted) })),
		prometheus.NewCounterFunc(prometheus.CounterOpts(opts("refused_total", "Connections to the Raft address refused before any RPC.")),
			raft(func(s raftnet.Stats) float64 { return float64(s.Refused) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("open", "Connections between Raft servers, both ways.")),
			raft(func(s raftnet.Stats) float64 { return float64(s.Open) })))
}
