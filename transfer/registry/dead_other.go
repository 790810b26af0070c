//go:build !linux

package registry

import "net"

func unacknowledged(net.Conn) (waits, dead bool) { return false, false }
