package pki

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ReloadInterval is a good interval for Reloader.Run: three small files are
// read and compared, so it can be short.
const ReloadInterval = 5 * time.Second

// Files names PEM files. Cert may hold intermediate authorities after the
// certificate; CA may hold several authorities, so that one can be replaced by
// another without a moment at which nobody trusts anybody.
type Files struct {
	Cert string
	Key  string
	CA   string // empty: whoever connects is not asked for a certificate
}

// Reloader holds the certificate, key and authority of an agent and follows
// their files. New files take effect for new connections, together or not at
// all; while the files do not fit together, are not valid or not readable, the
// last good ones stay in use.
//
// All methods may be called from any goroutine.
type Reloader struct {
	files Files
	now   func() time.Time
	log   *slog.Logger

	current atomic.Pointer[material]

	mu     sync.Mutex // guards what follows, and serialises Reload
	seen   [sha256.Size]byte
	err    error // of the last Reload
	warned stage
}

// material is one consistent reading of the files. It is never written to.
type material struct {
	cert     *tls.Certificate
	roots    *x509.CertPool // nil without Files.CA
	notAfter time.Time      // when the first certificate of our chain expires
}

// NewReloader reads the files; an error means that they cannot be used as they
// are. now is the clock, time.Now but for tests.
func NewReloader(files Files, now func() time.Time, log *slog.Logger) (*Reloader, error) {
	r := &Reloader{files: files, now: now, log: log}
	if _, err := r.Reload(); err != nil {
		return nil, err
	}
	if info, err := os.Stat(files.Key); err == nil && info.Mode().Perm()&0o007 != 0 {
		log.Warn("other users of this host can read a private key", "file", files.Key, "mode", info.Mode().Perm().String())
	}
	return r, nil
}

// Reload reads the files and reports whether they were new and are now in use.
// On an error the last good ones stay in use.
func (r *Reloader) Reload() (changed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		if p := recover(); p != nil { // the files come from outside
			changed, err = false, fmt.Errorf("read certificates: %v", p)
		}
		r.err = err
	}()
	read := func(path string) []byte {
		if path == "" || err != nil {
			return nil
		}
		var data []byte
		data, err = readFile(path)
		return data
	}
	cert, key, ca := read(r.files.Cert), read(r.files.Key), read(r.files.CA)
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(bytes.Join([][]byte{cert, key, ca}, []byte{0}))
	if sum == r.seen && r.current.Load() != nil {
		return false, nil
	}
	m, err := r.parse(cert, key, ca)
	if err != nil {
		return false, err
	}
	r.current.Store(m)
	r.seen = sum
	r.warned = stageOK
	return true, nil
}

// parse turns the contents of the files into settings that work together now.
func (r *Reloader) parse(certPEM, keyPEM, caPEM []byte) (*material, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", r.files.Cert, r.files.Key, err)
	}
	now, leaf := r.now(), pair.Leaf
	if now.After(leaf.NotAfter) {
		return nil, fmt.Errorf("certificate %s expired at %s", r.files.Cert, leaf.NotAfter.Format(time.RFC3339))
	}
	if now.Before(leaf.NotBefore) {
		return nil, fmt.Errorf("certificate %s is not valid before %s; is the clock right?", r.files.Cert, leaf.NotBefore.Format(time.RFC3339))
	}
	m := &material{cert: &pair, notAfter: leaf.NotAfter}
	if r.files.CA == "" {
		return m, nil
	}
	if m.roots, err = parsePool(caPEM); err != nil {
		return nil, fmt.Errorf("authority %s: %w", r.files.CA, err)
	}
	chains, err := verify(&pair, m.roots, now)
	if err != nil {
		return nil, fmt.Errorf("certificate %s is not one of authority %s: %w", r.files.Cert, r.files.CA, err)
	}
	for _, c := range chains[0] {
		if c.NotAfter.Before(m.notAfter) {
			m.notAfter = c.NotAfter
		}
	}
	return m, nil
}

// verify checks our own certificate the way the other agents will, as that of a
// server and of a client.
func verify(pair *tls.Certificate, roots *x509.CertPool, now time.Time) (chains [][]*x509.Certificate, err error) {
	intermediates := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		intermediates.AddCert(c)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		chains, err = pair.Leaf.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			return nil, err
		}
	}
	return chains, nil
}

// parsePool reads a bundle of authorities; one that cannot be read is an error.
func parsePool(data []byte) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(c)
		n++
	}
	if n == 0 {
		return nil, errors.New("holds no PEM certificate")
	}
	return pool, nil
}

// Run reloads the files and checks for expiry at every interval until ctx ends.
// It logs each change, each new kind of failure once, and the warnings of
// CheckExpiry.
func (r *Reloader) Run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last := ""
	for {
		r.CheckExpiry()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, err := r.Reload()
		switch {
		case err != nil && err.Error() != last:
			last = err.Error()
			r.log.Error("new certificate files cannot be used, the old ones stay", "err", err)
		case err == nil:
			last = ""
		}
		if changed {
			r.log.Info("certificate files are reloaded", "cert", r.files.Cert, "expires", r.NotAfter())
		}
	}
}

// Err returns why the files as they are on disk are not in use, or nil.
func (r *Reloader) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// NotAfter returns when the certificate in use, or an authority it needs, expires.
func (r *Reloader) NotAfter() time.Time { return r.current.Load().notAfter }

// Left returns the time until NotAfter, for a metric; negative afterwards.
func (r *Reloader) Left() time.Duration { return r.NotAfter().Sub(r.now()) }

// Check returns an error that wraps ErrIdentity unless the certificate in use
// is that of the agent self: at start, so that an operator learns it from this
// agent rather than from its peers.
func (r *Reloader) Check(self Identity) error { return self.Check(r.current.Load().cert.Leaf) }
