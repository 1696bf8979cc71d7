package raftnet

import (
	"errors"
	"fmt"
)

// Errors of a connection between servers.
var (
	// ErrOtherServer is returned when another server than the wanted one
	// listens at an address: it lost its disk, or the address changed hands.
	ErrOtherServer = errors.New("another server listens there")
	// ErrOtherCluster is returned when the server is of another cluster.
	ErrOtherCluster = errors.New("server of another cluster")
	// ErrRefused is returned when the listener does not take the dialer for
	// the server it says it is.
	ErrRefused = errors.New("refused by the other server")
	// ErrUnknownServer is returned for a server that Resolve does not know.
	ErrUnknownServer = errors.New("not a server of this cluster")
)

// err turns the answer of the server at addr into an error of the dialer.
func (a *answer) err(addr string, said preamble) error {
	switch {
	case a.Verdict == otherCluster:
		return fmt.Errorf("%w: %s is of cluster %s, this one is of %s", ErrOtherCluster, addr, a.Cluster, said.Cluster)
	case a.Verdict == otherServer, a.Verdict == accepted && a.ID != said.To:
		return fmt.Errorf("%w: %s is server %s, wanted %s", ErrOtherServer, addr, a.ID, said.To)
	case a.Verdict == accepted:
		return nil
	case a.Verdict == unproven:
		return fmt.Errorf("%w: %s says that the certificate of this agent is neither of server id %s nor of name %s", ErrRefused, addr, said.From, said.Name)
	}
	return fmt.Errorf("%w: %s gives reason %d, unknown to this version", ErrRefused, addr, a.Verdict)
}
