package registry

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

const (
	// idleTime is how long a connection is kept that no request uses.
	idleTime = 90 * time.Second
	// maxIdle is how many idle connections a client keeps, to one host and in all: to the
	// registry, its token service and its storage.
	maxIdlePerHost, maxIdle = 8, 24
	// LargeBlob is the size in bytes from which a blob comes over a connection of its own:
	// one HTTP/2 connection has one window of flow control for all its streams.
	LargeBlob = 8 << 20
)

// transport sends a session's requests: over HTTP/2 where the registry offers it (RFC 9113,
// section 3.2), so that parallel requests share one connection and its handshakes; large
// blobs over HTTP/1.1, each on a connection of its own.
type transport struct {
	shared, separate *http.Transport
	observer         Observer
}

func newTransport(base *http.Transport, observer Observer) *transport {
	base.IdleConnTimeout, base.MaxIdleConns, base.MaxIdleConnsPerHost = idleTime, maxIdle, maxIdlePerHost
	if base.TLSClientConfig == nil {
		base.TLSClientConfig = &tls.Config{} //nolint:gosec // the default of crypto/tls is TLS 1.2
	}
	if base.TLSClientConfig.ClientSessionCache == nil {
		// A further connection resumes the TLS session of the first (RFC 8446, section 2.2).
		base.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	if dial := base.DialContext; dial != nil && observer != nil {
		base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err == nil {
				observer.Connected()
			}
			return conn, err
		}
	}
	separate := base.Clone()
	separate.ForceAttemptHTTP2 = false
	separate.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	base.ForceAttemptHTTP2 = true
	return &transport{shared: base, separate: separate, observer: observer}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	inner := t.shared
	if isLarge(req.Context()) {
		inner = t.separate
	}
	resp, err := inner.RoundTrip(req)
	if err == nil && t.observer != nil {
		t.observer.Requested(resp.Proto)
	}
	return resp, err
}

// CloseIdleConnections serves http.Client.CloseIdleConnections.
func (t *transport) CloseIdleConnections() {
	t.shared.CloseIdleConnections()
	t.separate.CloseIdleConnections()
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
