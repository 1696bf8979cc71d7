package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/pki"
	"github.com/fluid-sd/fluid/agent/store"
)

// peers reaches the HTTP interfaces of other agents.
type peers struct {
	secret string // join secret, else operator token
	http   *http.Client
	ca     string // file of the authorities of their certificates; empty: the system's

	mu      sync.Mutex // guards clients
	clients map[string]*api.Client
}

var _ store.Forwarder = (*peers)(nil)

func newPeers(cfg *Config) (*peers, error) {
	tr := &http.Transport{
		Proxy: nil, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}
	if ca := cfg.TLSCAFile; ca != "" {
		dial, err := pki.DialTLS(ca)
		if err != nil {
			return nil, &ConfigError{"tls_ca_file", ca, "cannot be used: " + err.Error(), "give a PEM file"}
		}
		tr.DialTLSContext = dial
	}
	p := &peers{secret: cfg.Raft.JoinSecret, http: &http.Client{Transport: tr}, ca: cfg.TLSCAFile, clients: map[string]*api.Client{}}
	if p.secret == "" {
		p.secret = cfg.Token
	}
	return p, nil
}

// to returns a client of the agent at a base URL.
func (p *peers) to(url string) (*api.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.clients[url]; c != nil {
		return c, nil
	}
	c, err := api.NewClient(url, p.secret, p.http)
	if err == nil {
		p.clients[url] = c
	}
	return c, err
}

// plain returns a function that connects to the agent at a base URL, for a
// connection that will not go on with HTTP.
func (p *peers) plain(base string) func(ctx context.Context, addr string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		if !strings.HasPrefix(base, "https:") {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
		if p.ca == "" {
			d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}}
			return d.DialContext(ctx, "tcp", addr)
		}
		dial, err := pki.DialTLS(p.ca, "http/1.1")
		if err != nil {
			return nil, err
		}
		return dial(ctx, "tcp", addr)
	}
}

// Forward implements store.Forwarder.
func (p *peers) Forward(ctx context.Context, leader store.Server, request []byte) ([]byte, error) {
	c, err := p.to(leader.HTTP)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return c.Forward(ctx, request)
}

// close gives up the connections that are kept.
func (p *peers) close() { p.http.CloseIdleConnections() }

// Pauses between attempts to join, doubled each time and spread by half.
const (
	minJoinPause = 250 * time.Millisecond
	maxJoinPause = 15 * time.Second
	joinTimeout  = 10 * time.Second
)

// join asks the agent at RAFT_JOIN_URL, or the leader it names, to take this
// server in, until that is done or ctx ends. It never forms a cluster. It runs
// at every start: that is how the cluster learns of a new address. Where there
// are servers enough the agent ends, to be started again as a client; see Run.
func (a *Agent) join(ctx context.Context) {
	said := ""
	for pause := minJoinPause; ; pause = min(2*pause, maxJoinPause) {
		err := a.tryJoin(ctx)
		switch {
		case err == nil:
			a.joinErr.Store(nil)
			return
		case ctx.Err() != nil:
			return
		case errors.Is(err, store.ErrOtherCluster), errors.Is(err, store.ErrFull):
			a.fail("join", err)
			return
		case err.Error() != said:
			said = err.Error()
			why := said
			a.joinErr.Store(&why)
			a.log.Warn("could not join yet", "url", a.cfg.Raft.JoinURL, "error", err)
		}
		t := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

func (a *Agent) tryJoin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	c, err := a.peers.to(a.cfg.Raft.JoinURL)
	if err != nil {
		return err
	}
	joined, err := c.Join(ctx, a.joinRequest())
	if err != nil {
		return err
	}
	a.log.Info("joined the cluster", "cluster", joined.ClusterID, "servers", len(joined.Servers))
	return nil
}

// joinRequest is what this agent asks of a cluster that it joins.
func (a *Agent) joinRequest() api.JoinRequest {
	self := a.store.Self()
	return api.JoinRequest{
		ID: self.ID, Name: self.Name, Addr: a.raftAddr, HTTP: self.HTTP, Zone: self.Zone, Version: self.Version,
		Protocol: self.Protocol, ClusterID: a.clusterID(), Auto: a.cfg.Raft.Role == roleAuto,
	}
}
