package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// ServerConfig returns the listener's side of TLS. With an authority, a peer
// must show a certificate of it that carries an identity (of which agent is
// for Identity.Check to say, once the peer has named itself); without one,
// peers stay anonymous. protocols are what is spoken on the connection (ALPN,
// RFC 7301); a peer of an authority must agree on one.
func (r *Reloader) ServerConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := r.current.Load()
			c := &tls.Config{
				MinVersion:             tls.VersionTLS13,
				NextProtos:             protocols,
				Certificates:           []tls.Certificate{*m.cert},
				SessionTicketsDisabled: true,
				Time:                   r.now,
			}
			if m.roots != nil {
				c.ClientAuth = tls.RequireAndVerifyClientCert
				c.ClientCAs = m.roots
				c.VerifyConnection = func(cs tls.ConnectionState) error {
					if ids, names := identities(cs.PeerCertificates[0]); len(ids)+len(names) == 0 {
						return fmt.Errorf("%w: the certificate of %q names no agent", ErrIdentity, cs.PeerCertificates[0].Subject.CommonName)
					}
					return agreed(cs, protocols)
				}
			}
			return c, nil
		},
	}
}

// ClientConfig returns the dialer's side of TLS towards the agent peer: its
// certificate must be of the authority, for servers, and carry that identity;
// the name or address that was dialled proves nothing and is not compared. It
// needs Files.CA. The result is for one connection: later ones should ask
// again, so that they see new files.
func (r *Reloader) ClientConfig(peer Identity, protocols ...string) *tls.Config {
	m := r.current.Load()
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		// Always ours, so that a server that does not trust it says so.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.cert, nil },
		Time:                 r.now,
		// The standard check compares host names; VerifyConnection does
		// everything else it does, and compares identities.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if m.roots == nil {
				return errors.New("no authority is configured to verify other agents")
			}
			opts := x509.VerifyOptions{
				Roots: m.roots, Intermediates: x509.NewCertPool(), CurrentTime: r.now(),
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			}
			for _, c := range cs.PeerCertificates[1:] {
				opts.Intermediates.AddCert(c)
			}
			if _, err := cs.PeerCertificates[0].Verify(opts); err != nil {
				return err
			}
			if err := peer.Check(cs.PeerCertificates[0]); err != nil {
				return err
			}
			return agreed(cs, protocols)
		},
	}
}

// agreed refuses a peer that did not negotiate a protocol: TLS alone lets it
// pass, and then a connection meant for another service could be replayed here.
func agreed(cs tls.ConnectionState, protocols []string) error {
	if len(protocols) > 0 && cs.NegotiatedProtocol == "" {
		return fmt.Errorf("peer does not speak %q", protocols)
	}
	return nil
}
