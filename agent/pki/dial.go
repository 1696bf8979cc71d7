package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
)

// DialTLS returns a function for http.Transport.DialTLSContext that connects to
// HTTP interfaces with certificates of the authorities in caFile, for the host
// that is dialed. The file is read for every connection, so that an authority
// can be replaced while the client runs; an error of DialTLS means that it
// cannot be used as it is. protos are what is spoken, by default HTTP/2, which
// needs ForceAttemptHTTP2, and HTTP/1.1.
func DialTLS(caFile string, protos ...string) (func(ctx context.Context, network, addr string) (net.Conn, error), error) {
	if _, err := readPool(caFile); err != nil {
		return nil, err
	}
	if len(protos) == 0 {
		protos = []string{"h2", "http/1.1"}
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		roots, err := readPool(caFile)
		if err != nil {
			return nil, err
		}
		d := tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, NextProtos: protos}}
		return d.DialContext(ctx, network, addr)
	}, nil
}

func readPool(caFile string) (*x509.CertPool, error) {
	data, err := readFile(caFile)
	if err != nil {
		return nil, err
	}
	pool, err := parsePool(data)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", caFile, err)
	}
	return pool, nil
}
