package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
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

	mu    sync.Mutex
	http1 map[string]bool // hosts that have HTTP/1.1 alone, maxHTTP1 at most
}

// maxHTTP1 is of how many hosts it is remembered that they have HTTP/1.1 alone: redirects
// may lead to ever new ones.
const maxHTTP1 = 64

func newTransport(base *http.Transport, observer Observer) *transport {
	t := &transport{observer: observer, http1: map[string]bool{}}
	sessions := tls.NewLRUClientSessionCache(0)
	t.shared, t.separate, t.ours = t.connections(base, sessions), t.connections(base, sessions), t.connections(base, sessions)
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
	resp, err := t.roundTrip(req)
	for again := 0; again < 2 && brokenByOthers(req, err) && mayRepeat(req); again++ {
		resp, err = t.roundTrip(repeated(req))
	}
	if err == nil {
		if resp.ProtoMajor == 1 && !isLarge(req.Context()) {
			t.noteHTTP1(req.URL.Host)
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

// roundTrip sends the request. One of the image that HTTP/2 breaks before its answer is sent as
// containerd would have sent it: a server's HTTP/2 may be broken, and a request of ours that the server,
// or a firewall, cannot stand may have ended the connection that both share.
func (t *transport) roundTrip(req *http.Request) (*http.Response, error) {
	chosen := t.choose(req)
	if chosen != t.shared || isOurs(req.Context()) || !mayRepeat(req) {
		return asCut(chosen.RoundTrip(req))
	}
	var http2 atomic.Bool
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		c, ok := info.Conn.(*tls.Conn)
		http2.Store(ok && c.ConnectionState().NegotiatedProtocol == "h2")
	}})
	resp, err := chosen.RoundTrip(req.WithContext(ctx))
	var timeout interface{ Timeout() bool }
	if err == nil || !http2.Load() || ctx.Err() != nil || errors.Is(err, errDead) || errors.As(err, &timeout) && timeout.Timeout() {
		return asCut(resp, err)
	}
	return t.separate.RoundTrip(repeated(req))
}

// asCut has the body of an HTTP/2 answer end as that of HTTP/1.1 does where it breaks: after
// io.ErrUnexpectedEOF, and no other error, containerd's fetcher reads on with another request.
func asCut(resp *http.Response, err error) (*http.Response, error) {
	if err == nil && resp.ProtoMajor == 2 {
		resp.Body = cutBody{resp.Body, resp.Request.Context()}
	}
	return resp, err
}

type cutBody struct {
	io.ReadCloser
	ctx context.Context
}

func (b cutBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() == nil {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// choose returns the connections for the request.
func (t *transport) choose(req *http.Request) *http.Transport {
	switch {
	case isOurs(req.Context()):
		if req.URL.Scheme == "http" || t.hasHTTP1(req.URL.Host) {
			return t.ours
		}
	case isLarge(req.Context()):
		return t.separate
	}
	return t.shared
}

func (t *transport) noteHTTP1(host string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.http1) < maxHTTP1 {
		t.http1[host] = true
	}
}

func (t *transport) hasHTTP1(host string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.http1[host]
}

// CloseIdleConnections serves http.Client.CloseIdleConnections.
func (t *transport) CloseIdleConnections() {
	t.shared.CloseIdleConnections()
	t.separate.CloseIdleConnections()
	t.ours.CloseIdleConnections()
}

type largeKey struct{}

// WithSize has the requests of the context choose their connection by the size in bytes of
// the blob that they get, see [LargeBlob].
func WithSize(ctx context.Context, size int64) context.Context {
	return context.WithValue(ctx, largeKey{}, size >= LargeBlob)
}

func isLarge(ctx context.Context) bool {
	large, _ := ctx.Value(largeKey{}).(bool)
	return large
}

type oursKey struct{}

// asOurs says whether the requests of the context are ours, or the image's.
func asOurs(ctx context.Context, ours bool) context.Context {
	return context.WithValue(ctx, oursKey{}, ours)
}

func isOurs(ctx context.Context) bool {
	ours, _ := ctx.Value(oursKey{}).(bool)
	return ours
}
