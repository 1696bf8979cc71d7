package feed

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"

	"google.golang.org/grpc/credentials"
)

// Peers says who may use a server: root, the user that the server runs as, the
// group of the socket, and these.
type Peers struct {
	UIDs []uint32 // further users
	GIDs []uint32 // groups, primary or supplementary, of further users
	// Unchecked admits a connection whose user the system does not tell. It is
	// for connections that somebody else has checked, and for tests.
	Unchecked bool
}

// peerCred is who is at the other end of a unix socket, as of the connect.
// Users of another user namespace appear as the overflow id, 65534.
type peerCred struct {
	uid, gid uint32
	pid      int32
	groups   []uint32 // supplementary
	err      error    // why the rest is not known
}

// AuthType implements credentials.AuthInfo.
func (peerCred) AuthType() string { return "peercred" }

// check returns nil if the peer may use the server, whose socket belongs to a
// group, -1 if that is not known.
func (p Peers) check(c peerCred, group int64) error {
	if c.err != nil {
		if p.Unchecked {
			return nil
		}
		return fmt.Errorf("the user of the connection is not known: %w", c.err)
	}
	if c.uid == 0 || int64(c.uid) == int64(os.Geteuid()) || slices.Contains(p.UIDs, c.uid) {
		return nil
	}
	for _, g := range append([]uint32{c.gid}, c.groups...) {
		if int64(g) == group || slices.Contains(p.GIDs, g) {
			return nil
		}
	}
	return fmt.Errorf("uid %d gid %d (process %d) may not use the feed socket; run CoreDNS as uid %d or in group %d",
		c.uid, c.gid, c.pid, os.Geteuid(), group)
}

// peerCredentials is a gRPC transport security that encrypts nothing and
// learns who the peer is from the kernel. The decision is the session's, so
// that it can be told to the peer in words.
type peerCredentials struct{}

var _ credentials.TransportCredentials = peerCredentials{}

func (peerCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, credOf(c), nil
}

func (peerCredentials) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, peerCred{}, nil
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}
func (c peerCredentials) Clone() credentials.TransportCredentials { return c }
func (peerCredentials) OverrideServerName(string) error           { return nil }
