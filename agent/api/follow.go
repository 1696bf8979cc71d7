package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/fluid-sd/fluid/agent/store"
)

// Follow and report are how an agent that is no server takes part. It takes
// what is committed from a server by the protocol of package feed, over a
// connection of the HTTP interface that both sides agree to use for that; and
// each second it tells the server of the DNS members at its socket and is told
// of the cluster.

// followProtocol is what the connection is upgraded to.
const followProtocol = "fluid-feed"

// ErrNotServer is returned for what only a server can be asked.
var ErrNotServer = errors.New("this agent is a client")

// maxReport bounds a ClientReport: a few hundred DNS members.
const maxReport = 128 << 10

// ClientReport is what a client tells the server that it follows.
type ClientReport struct {
	ID        string           `json:"id"` // random id of its data directory
	Name      string           `json:"name"`
	Zone      string           `json:"zone,omitempty"`
	ClusterID string           `json:"clusterId,omitempty"` // empty if it knows none yet
	Roster    string           `json:"roster,omitempty"`    // digest of the roster that it knows
	Members   []ReportedMember `json:"members"`
}

// ReportedMember is a DNS member at the socket of a client.
type ReportedMember struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Applied   string `json:"applied"` // position
	Connected bool   `json:"connected"`
	ClientTTL string `json:"clientTTL"`
}

// ClusterInfo is what an agent answers to a ClientReport.
type ClusterInfo struct {
	ID          string         `json:"id"` // of the agent that answers
	Server      bool           `json:"server"`
	ClusterID   string         `json:"clusterId"`
	Term        uint64         `json:"term"`
	CommitIndex uint64         `json:"commitIndex"`
	Servers     []ZonedServer  `json:"servers"`
	Roster      string         `json:"roster"`            // its digest
	Members     []RosterMember `json:"members,omitempty"` // left out if the client's digest is the same
}

// ZonedServer is a server with its failure domain.
type ZonedServer struct {
	RaftServer
	Zone string `json:"zone,omitempty"`
}

// RosterMember is a DNS member of the roster.
type RosterMember struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Store returns what the answer says in terms of package store. Members is nil
// if the roster was left out.
func (in *ClusterInfo) Store() store.Cluster {
	out := store.Cluster{ID: in.ClusterID, Term: in.Term, CommitIndex: in.CommitIndex}
	for _, sv := range in.Servers {
		out.Servers = append(out.Servers, store.Server{
			ID: sv.ID, Name: sv.Name, Addr: sv.Addr, HTTP: sv.HTTP, Zone: sv.Zone,
			Voter: sv.Suffrage == "voter", Leader: sv.Leader, Healthy: sv.Healthy,
		})
	}
	if in.Members == nil {
		return out
	}
	out.Members = []store.Member{}
	for _, m := range in.Members {
		out.Members = append(out.Members, store.Member{ID: m.ID, Name: m.Name})
	}
	return out
}

// followOps serves clients.
func (s *server) followOps(mux *http.ServeMux) {
	mux.HandleFunc("POST "+ReportPath, func(w http.ResponseWriter, r *http.Request) {
		var in ClientReport
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReport)).Decode(&in); err != nil {
			writeProblem(w, fmt.Errorf("%w: report: %w", ErrInvalid, err))
			return
		}
		out, err := s.Report(in)
		if err != nil {
			writeProblem(w, err)
			return
		}
		writeJSON(w, http.StatusOK, out)
	})
	mux.HandleFunc("GET "+FollowPath, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.Follow == nil:
			writeProblem(w, fmt.Errorf("%w; follow one of its servers", ErrNotServer))
			return
		case r.Header.Get("Upgrade") != followProtocol:
			writeProblem(w, fmt.Errorf("%w: the connection must be upgraded to %s", ErrInvalid, followProtocol))
			return
		}
		if err := s.hijack(w); err != nil {
			writeProblem(w, fmt.Errorf("%w: the connection cannot be upgraded: %w", ErrInvalid, err))
		}
	})
}

// hijack takes the connection away from HTTP and hands it on.
func (s *server) hijack(w http.ResponseWriter) error {
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	if sw, ok := w.(*statusWriter); ok {
		sw.status = http.StatusSwitchingProtocols // for the metrics
	}
	_, err = fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", followProtocol)
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = nc.Close()
		return nil // nobody is there to be told
	}
	s.Follow(&upgraded{Conn: nc, r: rw.Reader})
	return nil
}

// upgraded is a connection of which a part may have been read ahead.
type upgraded struct {
	net.Conn
	r *bufio.Reader
}

func (c *upgraded) Read(b []byte) (int, error) {
	if c.r.Buffered() > 0 {
		return c.r.Read(b)
	}
	return c.Conn.Read(b)
}

// Report tells an agent of this client and is told of the cluster.
func (c *Client) Report(ctx context.Context, r ClientReport) (ClusterInfo, error) {
	var out ClusterInfo
	err := c.do(ctx, http.MethodPost, ReportPath, nil, nil, r, &out)
	return out, err
}

// Follow opens a connection on which the agent speaks the protocol of package
// feed. dial connects, with TLS for HTTP/1.1 where the agent's address begins
// with https. ctx bounds the opening.
func (c *Client) Follow(ctx context.Context, dial func(ctx context.Context, addr string) (net.Conn, error)) (_ net.Conn, err error) {
	u, err := url.Parse(c.base)
	if err != nil {
		return nil, err
	}
	host := u.Host
	if u.Port() == "" {
		port := "80"
		if u.Scheme == "https" {
			port = "443"
		}
		host = net.JoinHostPort(u.Hostname(), port)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+FollowPath, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", followProtocol)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	nc, err := dial(ctx, host)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = nc.Close()
		}
	}()
	abort := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	if err := req.Write(nc); err != nil {
		return nil, err
	}
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxEventLine))
		return nil, errors.Join(problemOf(resp, data), err, resp.Body.Close())
	}
	if !abort() {
		return nil, ctx.Err()
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return &upgraded{Conn: nc, r: br}, nil
}
