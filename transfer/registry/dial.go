package registry

import (
	"errors"
	"net"
	"syscall"
)

// dials is how often a request tries to connect in all, where it is told at once that it
// cannot for now. A host that is marked down stays so for the whole pull, and a proxy that
// restarts, or a resolver that is overrun, is no reason to know nothing of an image.
const dials = 3

// refused reports whether a connection was refused for now: by the host, or by a resolver
// that could not tell. One that nobody answered has cost its time already, and a name that
// does not exist will not exist a moment later.
func refused(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary && !dns.IsTimeout && !dns.IsNotFound
	}
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") &&
		(errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET))
}
