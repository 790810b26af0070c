package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// idleTime is how long a connection is kept that no request uses.
	idleTime = 90 * time.Second
	// maxIdlePerHost is how many idle connections a client keeps to one host.
	maxIdlePerHost = 8
	// maxIdle is how many it keeps in all: to the registry, its token service and its storage.
	maxIdle = 24
	// LargeBlob is the size in bytes from which a blob comes over a connection of its own:
	// one HTTP/2 connection has one window of flow control for all its streams.
	LargeBlob = 8 << 20
)

// transport sends a session's requests: over HTTP/2 where the registry offers it (RFC 9113,
// section 3.2), so that parallel requests share one connection and its handshakes; large
// layers over HTTP/1.1, each on a connection of its own.
//
// Where a host has HTTP/1.1 alone, requests of ours and those of the image have separate
// connections: a host that answers one of ours and then no longer reads would have the
// image's next request wait.
type transport struct {
	shared, separate, ours *http.Transport
	observer               Observer

	spares spares // for ours
	layers spares // for blobs of an image that is withheld, of separate
	direct dialer // without spares
	secure dialer // the same with TLS

	mu        sync.Mutex
	protocols map[string]int // the major version that a host last answered with, of maxHosts
}

// maxHosts is of how many hosts a transport remembers the protocol: redirects may lead to ever
// new ones.
const maxHosts = 64

func newTransport(base *http.Transport, observer Observer) *transport {
	t := &transport{observer: observer, protocols: map[string]int{}}
	sessions := tls.NewLRUClientSessionCache(0)
	t.shared, t.separate, t.ours = t.connections(base, sessions), t.connections(base, sessions), t.connections(base, sessions)
	if t.ours.DialContext != nil {
		t.direct, t.secure = t.ours.DialContext, overTLS(t.ours)
		t.ours.DialContext, t.ours.DialTLSContext = t.spares.or("http", t.direct), t.spares.or("https", t.secure)
		t.separate.DialContext, t.separate.DialTLSContext = t.layers.or("http", t.direct), t.layers.or("https", t.secure)
	}
	t.shared.ForceAttemptHTTP2 = true // a TLS configuration of its own would turn it off
	// What waits for an answer on a connection that died meanwhile is told after 40 s. A ping waits
	// behind what is being pushed, which the kernel alone may hold 4 MiB of.
	t.shared.HTTP2 = &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 30 * time.Second}
	return t
}

// connections returns a transport for HTTP/1.1 with connections of its own. It leaves base
// as it is: containerd makes those of other hosts of it. A further connection resumes the TLS
// session of the first (RFC 8446, section 2.2).
func (t *transport) connections(base *http.Transport, sessions tls.ClientSessionCache) *http.Transport {
	c := base.Clone()
	c.IdleConnTimeout, c.MaxIdleConns, c.MaxIdleConnsPerHost = idleTime, maxIdle, maxIdlePerHost
	if c.TLSClientConfig == nil {
		c.TLSClientConfig = &tls.Config{} //nolint:gosec // the default of crypto/tls is TLS 1.2
	}
	c.TLSClientConfig.ClientSessionCache = sessions
	if dial := c.DialContext; dial != nil {
		c.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return t.connected(conn), nil
		}
	}
	return c
}

// connected returns a connection that notices when it is used again and nobody is there any
// more: a middlebox may have forgotten it.
func (t *transport) connected(conn net.Conn) net.Conn {
	if t.observer != nil {
		t.observer.Connected()
	}
	return &checkedConn{Conn: conn, died: t.CloseIdleConnections, last: time.Now()}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if ctx := recordConnections(req.Context(), req.URL.Host); ctx != req.Context() {
		req = req.WithContext(ctx)
	}
	req = t.openAhead(req)
	resp, err := t.roundTrip(req)
	for again := 0; again < 2 && brokenByOthers(req, err) && mayRepeat(req); again++ {
		resp, err = t.roundTrip(repeated(req))
	}
	if err == nil {
		if !isLarge(req.Context()) {
			t.noteProtocol(req.URL.Host, resp.ProtoMajor)
		}
		if t.observer != nil {
			t.observer.Requested(resp.Proto)
		}
	}
	return resp, err
}

// brokenByOthers reports whether a request failed for what went before it over its connection: it
// died, or its last request was cancelled as it ended and took it along (net/http hands out a
// connection before the request whose answer is whole has returned).
func brokenByOthers(req *http.Request, err error) bool {
	return errors.Is(err, errDead) || req.Context().Err() == nil && errors.Is(err, context.Canceled)
}

// choose returns the connections for the request.
func (t *transport) choose(req *http.Request) *http.Transport {
	switch {
	case isOurs(req.Context()):
		if req.URL.Scheme == "http" || t.protocol(req.URL.Host) == 1 {
			return t.ours
		}
	case isLarge(req.Context()) || isBlob(req.Context()) && t.layers.has(spareKey(req.URL)):
		return t.separate
	}
	return t.shared
}

func (t *transport) noteProtocol(host string, major int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.protocols[host]; known || len(t.protocols) < maxHosts {
		t.protocols[host] = major
	}
}

// protocol returns the major version that the host last answered with, 0 where it is not known.
func (t *transport) protocol(host string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.protocols[host]
}

// CloseIdleConnections serves http.Client.CloseIdleConnections.
func (t *transport) CloseIdleConnections() {
	t.shared.CloseIdleConnections()
	t.separate.CloseIdleConnections()
	t.ours.CloseIdleConnections()
}

type largeKey struct{}

// WithSize has the requests of the context be for a blob, and choose their connection by its
// size in bytes, see [LargeBlob].
func WithSize(ctx context.Context, size int64) context.Context {
	return context.WithValue(ctx, largeKey{}, size >= LargeBlob)
}

func isLarge(ctx context.Context) bool {
	large, _ := ctx.Value(largeKey{}).(bool)
	return large
}

func isBlob(ctx context.Context) bool { return ctx.Value(largeKey{}) != nil }

type oursKey struct{}

// asOurs says whether the requests of the context are ours, or the image's.
func asOurs(ctx context.Context, ours bool) context.Context {
	return context.WithValue(ctx, oursKey{}, ours)
}

func isOurs(ctx context.Context) bool {
	ours, _ := ctx.Value(oursKey{}).(bool)
	return ours
}
