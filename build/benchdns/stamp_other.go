//go:build !linux

package main

import (
	"context"
	"net"
	"strconv"
	"time"
)

// dialStamped returns a socket for a port of 127.0.0.1.
func dialStamped(ctx context.Context, port int) (*net.UDPConn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// arrival returns now: only Linux has stamps in a form that is known here.
func arrival(_ []byte, now time.Time) time.Time { return now }
