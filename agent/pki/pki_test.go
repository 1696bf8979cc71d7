package pki_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fluid-sd/fluid/agent/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(epoch)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// write puts a certificate of ca into dir and returns its files.
func write(t *testing.T, dir string, ca *pki.CA, req pki.Request, now time.Time) pki.Files {
	t.Helper()
	cert, key, err := ca.Issue(req, now)
	if err != nil {
		t.Fatal(err)
	}
	caPEM, _, err := ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	files := pki.Files{Cert: filepath.Join(dir, "a.pem"), Key: filepath.Join(dir, "a.key"), CA: filepath.Join(dir, "ca.pem")}
	put(t, files.Cert, cert)
	put(t, files.Key, key)
	put(t, files.CA, caPEM)
	return files
}

func parse(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	if block == nil {
		t.Fatalf("no PEM in %q", certPEM)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIssue(t *testing.T) {
	ca := newCA(t)
	caPEM, _, err := ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM, err := ca.Issue(pki.Request{
		Identity: pki.Identity{ID: "6a9f-11", Name: "node1"},
		IPs:      []netip.Addr{netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("2001:db8::9")},
		Hosts:    []string{"node1.example.org"},
	}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Errorf("certificate and key do not fit: %v", err)
	}
	cert := parse(t, certPEM)
	if got, want := cert.NotAfter, epoch.Add(pki.CertValidity); !got.Equal(want) {
		t.Errorf("NotAfter = %s, want %s", got, want)
	}
	var uris []string
	for _, u := range cert.URIs {
		uris = append(uris, u.String())
	}
	if got, want := strings.Join(uris, " "), "urn:fluid:server:6a9f-11 urn:fluid:name:node1"; got != want {
		t.Errorf("URIs = %s, want %s", got, want)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parse(t, caPEM))
	for _, name := range []string{"10.0.0.9", "2001:db8::9", "node1.example.org"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: epoch, DNSName: name}); err != nil {
			t.Errorf("not valid for %s: %v", name, err)
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: epoch, DNSName: "10.0.0.10"}); err == nil {
		t.Error("valid for an address that was not asked for")
	}
}

func TestIssueRefuses(t *testing.T) {
	ca := newCA(t)
	tests := map[string]struct {
		req  pki.Request
		now  time.Time
		want string
	}{
		"no identity":       {pki.Request{}, epoch, "needs a server id or a name"},
		"bad name":          {pki.Request{Identity: pki.Identity{Name: "No_De"}}, epoch, "RAFT_ID"},
		"bad id":            {pki.Request{Identity: pki.Identity{ID: "a:b"}}, epoch, "server id"},
		"past":              {pki.Request{Identity: pki.Identity{Name: "a"}, Validity: -1}, epoch, "in the past"},
		"expired authority": {pki.Request{Identity: pki.Identity{Name: "a"}}, epoch.Add(pki.CAValidity + 1), "expired"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, _, err := ca.Issue(tt.req, tt.now); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
		})
	}
	cert, _, err := ca.Issue(pki.Request{Identity: pki.Identity{Name: "a"}}, epoch.Add(pki.CAValidity-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := parse(t, cert).NotAfter, epoch.Add(pki.CAValidity); !got.Equal(want) {
		t.Errorf("NotAfter = %s, want that of the authority, %s", got, want)
	}
}

func TestReadCA(t *testing.T) {
	dir := t.TempDir()
	one, two := newCA(t), newCA(t)
	cert, key, err := one.PEM()
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := two.PEM()
	if err != nil {
		t.Fatal(err)
	}
	leaf, leafKey, err := one.Issue(pki.Request{Identity: pki.Identity{Name: "a"}}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		cert, key []byte
		want      string
	}{
		"good":             {cert, key, ""},
		"key of another":   {cert, other, "is not the key of"},
		"not an authority": {leaf, leafKey, "is not an authority"},
		"no certificate":   {key, key, "holds no PEM certificate"},
		"no key":           {cert, cert, "holds no PEM private key"},
		"empty":            {nil, nil, "holds no PEM certificate"},
		"huge":             {bytes.Repeat([]byte("x"), 2<<20), key, "is larger than"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, k := filepath.Join(dir, "c"), filepath.Join(dir, "k")
			put(t, c, tt.cert)
			put(t, k, tt.key)
			ca, err := pki.ReadCA(c, k)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("err = %v, want one with %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := ca.Issue(pki.Request{Identity: pki.Identity{Name: "a"}}, epoch); err != nil {
				t.Errorf("issue after reading back: %v", err)
			}
		})
	}
}

func TestIdentityCheck(t *testing.T) {
	ca := newCA(t)
	certs := map[string]*x509.Certificate{}
	for name, id := range map[string]pki.Identity{
		"by id": {ID: "id-1"}, "by name": {Name: "node1"}, "by both": {ID: "id-1", Name: "node1"},
	} {
		c, _, err := ca.Issue(pki.Request{Identity: id}, epoch)
		if err != nil {
			t.Fatal(err)
		}
		certs[name] = parse(t, c)
	}
	certs["of nobody"] = &x509.Certificate{}
	tests := []struct {
		cert string
		peer pki.Identity
		want bool
	}{
		{"by id", pki.Identity{ID: "id-1", Name: "node1"}, true},
		{"by id", pki.Identity{ID: "id-2", Name: "node1"}, false},
		{"by id", pki.Identity{Name: "node1"}, false},
		{"by name", pki.Identity{ID: "id-1", Name: "node1"}, true},
		{"by name", pki.Identity{ID: "id-2", Name: "node1"}, true}, // a lost disk keeps its certificate
		{"by name", pki.Identity{ID: "node1", Name: "node2"}, false},
		{"by name", pki.Identity{ID: "id-1"}, false},
		{"by both", pki.Identity{ID: "id-1", Name: "node2"}, true},
		{"by both", pki.Identity{ID: "id-2", Name: "node1"}, false}, // the id is what counts
		{"of nobody", pki.Identity{ID: "id-1", Name: "node1"}, false},
		{"of nobody", pki.Identity{}, false},
	}
	for _, tt := range tests {
		err := tt.peer.Check(certs[tt.cert])
		if (err == nil) != tt.want || err != nil && !errors.Is(err, pki.ErrIdentity) {
			t.Errorf("certificate %s for %+v: %v, want ok %t", tt.cert, tt.peer, err, tt.want)
		}
	}
}

func TestWriteNew(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := pki.WriteNew(pki.File{Path: a, Mode: pki.SecretMode, Data: []byte("1")}, pki.File{Path: b, Mode: pki.PublicMode, Data: []byte("2")}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{a: 0o600, b: 0o644} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s = %v, want %v", path, got, want)
		}
	}
	t.Run("nothing is overwritten", func(t *testing.T) {
		c := filepath.Join(dir, "c")
		err := pki.WriteNew(pki.File{Path: c, Mode: pki.SecretMode}, pki.File{Path: a, Mode: pki.SecretMode, Data: []byte("3")})
		if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), a) {
			t.Errorf("err = %v, want fs.ErrExist naming %s", err, a)
		}
		if got, _ := os.ReadFile(a); string(got) != "1" {
			t.Errorf("content = %q, want 1", got)
		}
		if _, err := os.Stat(c); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the other file was written: %v", err)
		}
	})
	t.Run("a failure leaves nothing", func(t *testing.T) {
		d := filepath.Join(dir, "d")
		err := pki.WriteNew(pki.File{Path: d, Mode: pki.SecretMode}, pki.File{Path: filepath.Join(dir, "none", "e"), Mode: pki.SecretMode})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("err = %v, want fs.ErrNotExist", err)
		}
		entries, _ := os.ReadDir(dir)
		if len(entries) != 2 {
			t.Errorf("directory holds %v, want a and b", entries)
		}
	})
	t.Run("one of many wins", func(t *testing.T) {
		path := filepath.Join(dir, "race")
		var wins, taken int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				err := pki.WriteNew(pki.File{Path: path, Mode: pki.SecretMode, Data: []byte("x")})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					wins++
				} else if errors.Is(err, fs.ErrExist) {
					taken++
				}
			})
		}
		wg.Wait()
		if wins != 1 || taken != 15 {
			t.Errorf("%d wrote and %d found it taken, want 1 and 15", wins, taken)
		}
	})
}

func TestNewSecret(t *testing.T) {
	a, err := pki.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	b, err := pki.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a, b) || len(a) != 65 || a[64] != '\n' {
		t.Errorf("secrets %q and %q, want two different ones of 64 digits", a, b)
	}
}

// handshake runs TLS between the two configurations and returns what each end
// thinks of it after a byte in each direction.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // unlike net.Pipe it buffers, so both ends may send alerts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	_ = a.SetDeadline(deadline)
	_ = b.SetDeadline(deadline)
	s, c := tls.Server(a, server), tls.Client(b, client)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer a.Close()
		var one [1]byte
		if _, serverErr = s.Read(one[:]); serverErr == nil {
			_, serverErr = s.Write(one[:])
		}
	})
	if _, clientErr = c.Write([]byte{1}); clientErr == nil {
		var one [1]byte
		_, clientErr = c.Read(one[:])
	}
	b.Close()
	wg.Wait()
	return serverErr, clientErr
}

// issueNobody makes a certificate of ca, for clients and servers, that names no
// agent: what an authority that serves people too would issue.
func issueNobody(t *testing.T, ca *pki.CA) (certPEM, keyPEM []byte) {
	t.Helper()
	caCert, caKey, err := ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(caCert, caKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "alice"},
		NotBefore:    epoch.Add(-time.Hour),
		NotAfter:     epoch.Add(time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, pair.Leaf, key.Public(), pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}
