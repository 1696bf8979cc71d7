package fluid

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coredns/coredns/pb"
	"github.com/coredns/coredns/plugin/pkg/doh"
	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// transports are the ways that CoreDNS takes queries, with what asks one query
// and returns the one reply.
var transports = []struct {
	scheme string
	ask    func(ctx context.Context, addr string, roots *tls.Config, q *dns.Msg) (*dns.Msg, error)
}{
	{"dns", askUDP}, {"dns+tcp", askTCP}, {"tls", askTLS}, {"https", askHTTPS}, {"https3", askHTTPS3}, {"quic", askQUIC}, {"grpc", askGRPC},
}

// askUDP sends a query and then another one from the same socket: whatever
// comes between the two replies was one packet too many.
func askUDP(ctx context.Context, addr string, _ *tls.Config, q *dns.Msg) (*dns.Msg, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	c := &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if err := c.WriteMsg(q); err != nil {
		return nil, err
	}
	reply, err := c.ReadMsg()
	if err != nil {
		return nil, err
	}
	next := new(dns.Msg).SetQuestion("nobody.fluid.internal.", dns.TypeA)
	if err := c.WriteMsg(next); err != nil {
		return nil, err
	}
	last, err := c.ReadMsg()
	if err == nil && last.Id != next.Id {
		err = fmt.Errorf("a second packet for one query: %v", last)
	}
	return reply, err
}

func askTCP(ctx context.Context, addr string, _ *tls.Config, q *dns.Msg) (*dns.Msg, error) {
	m, _, err := (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, q, addr)
	return m, err
}

func askTLS(ctx context.Context, addr string, conf *tls.Config, q *dns.Msg) (*dns.Msg, error) {
	m, _, err := (&dns.Client{Net: "tcp-tls", TLSConfig: conf}).ExchangeContext(ctx, q, addr)
	return m, err
}

func askHTTPS(ctx context.Context, addr string, conf *tls.Config, q *dns.Msg) (*dns.Msg, error) {
	t := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	defer t.CloseIdleConnections()
	return overHTTP(ctx, t, addr, q)
}

func askHTTPS3(ctx context.Context, addr string, conf *tls.Config, q *dns.Msg) (*dns.Msg, error) {
	t := &http3.Transport{TLSClientConfig: conf}
	m, err := overHTTP(ctx, t, addr, q)
	return m, errors.Join(err, t.Close())
}

func overHTTP(ctx context.Context, t http.RoundTripper, addr string, q *dns.Msg) (*dns.Msg, error) {
	req, err := doh.NewRequestWithContext(ctx, http.MethodPost, addr, addr, q)
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s: %w", resp.Status, err)
	}
	m := new(dns.Msg)
	return m, m.Unpack(body)
}

func askQUIC(ctx context.Context, addr string, conf *tls.Config, q *dns.Msg) (*dns.Msg, error) {
	conf = conf.Clone()
	conf.NextProtos = []string{"doq"}
	conn, err := quic.DialAddr(ctx, addr, conf, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.CloseWithError(0, "") }()
	s, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	q = q.Copy()
	q.Id = 0 // RFC 9250 section 4.2.1
	data, err := q.Pack()
	if err != nil {
		return nil, err
	}
	if _, err := s.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(data))), data...)); err != nil {
		return nil, err
	}
	_ = s.Close()
	reply, err := io.ReadAll(s)
	if err != nil || len(reply) < 2 || len(reply) != 2+int(binary.BigEndian.Uint16(reply)) {
		return nil, fmt.Errorf("stream of %d bytes, want one message: %w", len(reply), err)
	}
	m := new(dns.Msg)
	return m, m.Unpack(reply[2:])
}

func askGRPC(ctx context.Context, addr string, conf *tls.Config, q *dns.Msg) (*dns.Msg, error) {
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = cc.Close() }()
	data, err := q.Pack()
	if err != nil {
		return nil, err
	}
	reply, err := pb.NewDnsServiceClient(cc).Query(ctx, &pb.DnsPacket{Msg: data})
	if err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	return m, m.Unpack(reply.GetMsg())
}

// certificate writes a certificate for 127.0.0.1, and returns the directive
// that uses it and the client's configuration.
func certificate(t *testing.T) (directive string, conf *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		var buf bytes.Buffer
		if err := pem.Encode(&buf, block); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(parsed)
	return "tls " + certFile + " " + keyFile, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
}

// freePort returns a port that nobody uses, neither for TCP nor for UDP. Other
// servers share the ports they use for UDP, so binding it later would succeed
// and take half of their queries.
func freePort(t *testing.T) int {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		_ = l.Close()
		if err == nil {
			_ = pc.Close()
			return l.Addr().(*net.TCPAddr).Port
		}
	}
	t.Fatal("no free port")
	return 0
}
