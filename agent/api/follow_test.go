package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
)

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// A followed connection carries bytes both ways from the first one on, and is
// opened for whoever has the secret of servers only.
func TestFollow(t *testing.T) {
	b := newBench(t, func(c *api.Config) {
		c.Token, c.JoinSecret = "operator", "together"
		c.Follow = func(nc net.Conn) {
			go func() {
				_, _ = io.WriteString(nc, "hello ") // may arrive with the answer
				_, _ = io.Copy(nc, nc)
				_ = nc.Close()
			}()
		}
	})
	for secret, want := range map[string]error{"": api.ErrUnauthorized, "guess": api.ErrUnauthorized, "together": nil, "operator": nil} {
		c, err := api.NewClient(b.url, secret, b.http)
		if err != nil {
			t.Fatal(err)
		}
		nc, err := c.Follow(t.Context(), dialTCP)
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("secret %q: got %v, want %v", secret, err, want)
		}
		if err != nil {
			continue
		}
		if _, err := io.WriteString(nc, "world"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len("hello world"))
		if _, err := io.ReadFull(nc, got); err != nil || string(got) != "hello world" {
			t.Errorf("got %q, %v", got, err)
		}
		if err := nc.Close(); err != nil {
			t.Error(err)
		}
	}
	if r := b.do("GET", api.FollowPath, "", "Authorization", "Bearer together"); r.status != http.StatusBadRequest {
		t.Errorf("without an upgrade: got %d %s", r.status, r.text)
	}
}

// A client cannot be followed, and says what to follow.
func TestFollowClient(t *testing.T) {
	b := newBench(t)
	c, err := api.NewClient(b.url, "", b.http)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Follow(t.Context(), dialTCP); !errors.Is(err, api.ErrNotServer) {
		t.Errorf("got %v, want ErrNotServer", err)
	}
}

// Who does not answer does not hold up the one who asks.
func TestFollowIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := api.NewClient("http://"+l.Addr().String(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if nc, err := c.Follow(ctx, dialTCP); err == nil {
		_ = nc.Close()
		t.Error("a silent agent was followed")
	}
}

// A roster that was left out is not an empty one.
func TestReport(t *testing.T) {
	answer := api.ClusterInfo{ID: "a", Server: true, ClusterID: "c", Term: 3, CommitIndex: 9, Servers: []api.ZonedServer{
		{RaftServer: api.RaftServer{ID: "a", Name: "node1", HTTP: "http://a", Suffrage: "voter", Leader: true}, Zone: "z"},
	}}
	var got api.ClientReport
	b := newBench(t, func(c *api.Config) {
		c.Report = func(r api.ClientReport) (api.ClusterInfo, error) {
			got = r
			out := answer
			if r.Roster == "old" {
				out.Members = []api.RosterMember{{ID: "d", Name: "dns"}}
			}
			return out, nil
		}
	})
	c, err := api.NewClient(b.url, "", b.http)
	if err != nil {
		t.Fatal(err)
	}
	for roster, members := range map[string]int{"same": -1, "old": 1} {
		info, err := c.Report(t.Context(), api.ClientReport{ID: "x", Name: "node2", Roster: roster, Members: []api.ReportedMember{{ID: "d", Applied: "1:2", ClientTTL: "5s"}}})
		if err != nil || got.ID != "x" || len(got.Members) != 1 || got.Members[0].Applied != "1:2" {
			t.Fatalf("got %+v, %v", got, err)
		}
		k := info.Store()
		if k.ID != "c" || k.Term != 3 || len(k.Servers) != 1 || !k.Servers[0].Leader || !k.Servers[0].Voter || k.Servers[0].Zone != "z" {
			t.Errorf("got %+v", k)
		}
		if n := len(k.Members); members < 0 && k.Members != nil || members >= 0 && n != members {
			t.Errorf("roster %s: got %+v", roster, k.Members)
		}
	}
	if r := b.do("POST", api.ReportPath, `{"members":`); r.status != http.StatusBadRequest {
		t.Errorf("half a report: got %d %s", r.status, r.text)
	}
}
