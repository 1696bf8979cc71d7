package raftnet

import "github.com/fluid-sd/fluid/agent/pki"

// Bounds that tests look at.
const (
	HandshakeTimeout = handshakeTimeout
	MaxPending       = maxPending
	MaxPendingPerIP  = maxPendingPerIP
)

// SetSelf makes l claim to be another server.
func (l *Layer) SetSelf(id pki.Identity) { l.cfg.Self = id }
