package registry

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unacknowledged reports whether something that was sent still waits for its acknowledgement,
// and whether it was sent so often by now that the connection is dead: the kernel waits longer
// between two times where the way is long (RFC 6298).
func unacknowledged(conn net.Conn) (waits, dead bool) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false, false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false, false
	}
	var info *unix.TCPInfo
	if raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }) != nil || err != nil {
		return false, false
	}
	waits = info.Unacked > 0
	return waits, waits && info.Retransmits >= 2
}
