package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strconv"
	"syscall"
	"time"
)

// dialStamped returns a socket for a port of 127.0.0.1 whose messages carry the
// time at which the kernel put them into the socket. On loopback that is when
// the server sent them: a client that is kept from its processor, by those who
// make the changes for one, does not count as a slow server.
func dialStamped(ctx context.Context, port int) (*net.UDPConn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	udp := conn.(*net.UDPConn)
	raw, err := udp.SyscallConn()
	if err == nil {
		var option error
		err = raw.Control(func(fd uintptr) {
			option = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TIMESTAMPNS, 1)
		})
		err = errors.Join(err, option)
	}
	if err != nil {
		_ = udp.Close()
		return nil, err
	}
	return udp, nil
}

// arrival returns the kernel's time of arrival from the control messages of a
// datagram, now if it is not among them.
func arrival(control []byte, now time.Time) time.Time {
	all, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return now
	}
	for _, m := range all {
		if m.Header.Level == syscall.SOL_SOCKET && m.Header.Type == syscall.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			seconds, nanos := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			return time.Unix(int64(seconds), int64(nanos))
		}
	}
	return now
}
