package registry

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
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
// layers over HTTP/1.1, each on a connection of its own.
//
// Where a host has HTTP/1.1 alone, requests of ours and those of the image have separate
// connections: a host that answers one of ours and then no longer reads would have the
// image's next request wait.
type transport struct {
	shared, separate, ours *http.Transport
	observer               Observer
	http1                  sync.Map // hosts that have HTTP/1.1 alone
}

// newTransport leaves base as it is: containerd makes those of other hosts of it.
func newTransport(base *http.Transport, observer Observer) *transport {
	base = base.Clone()
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
	http1 := base.Clone()
	http1.ForceAttemptHTTP2 = false
	http1.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	base.ForceAttemptHTTP2 = true
	return &transport{shared: base, separate: http1, ours: http1.Clone(), observer: observer}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.choose(req).RoundTrip(req)
	if err == nil {
		if resp.ProtoMajor == 1 && !isLarge(req.Context()) {
			t.http1.Store(req.URL.Host, true)
		}
		if t.observer != nil {
			t.observer.Requested(resp.Proto)
		}
	}
	return resp, err
}

// choose returns the connections for the request.
func (t *transport) choose(req *http.Request) *http.Transport {
	switch {
	case isOurs(req.Context()):
		if _, http1 := t.http1.Load(req.URL.Host); http1 || req.URL.Scheme == "http" {
			return t.ours
		}
	case isLarge(req.Context()):
		return t.separate
	}
	return t.shared
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

// asOurs marks requests that are not the image's.
func asOurs(ctx context.Context) context.Context { return context.WithValue(ctx, oursKey{}, true) }

func isOurs(ctx context.Context) bool { return ctx.Value(oursKey{}) != nil }
