package feed

import (
	"fmt"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const maxGroups = 1024

// credOf asks the kernel who is at the other end of c.
func credOf(c net.Conn) peerCred {
	u, ok := c.(syscall.Conn)
	if !ok {
		return peerCred{err: fmt.Errorf("%T is not a unix socket", c)}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return peerCred{err: err}
	}
	var cred peerCred
	if err := raw.Control(func(fd uintptr) {
		var uc *unix.Ucred
		if uc, cred.err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); cred.err == nil {
			cred.uid, cred.gid, cred.pid = uc.Uid, uc.Gid, uc.Pid
			cred.groups = groupsOf(fd)
		}
	}); err != nil {
		return peerCred{err: err}
	}
	return cred
}

// groupsOf returns the supplementary groups of the peer, none where the kernel
// (before Linux 4.13) does not tell or there are more than maxGroups.
// SO_PEERCRED alone has the primary group only, and a service account is
// usually admitted through a supplementary one.
func groupsOf(fd uintptr) []uint32 {
	groups := make([]uint32, maxGroups)
	size := uint32(len(groups)) * 4
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || size/4 > maxGroups {
		return nil
	}
	return groups[:size/4]
}
