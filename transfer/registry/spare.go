package registry

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"
)

const (
	// maxSpares is how many connections are opened before requests for referrers need them:
	// for the listings of an image's root and manifest, and then a referrer and a tag of each.
	maxSpares = 4
	// maxLayerSpares is how many are opened before the config and the layers of an image need
	// them that are withheld until its verdict: one more is idle then.
	maxLayerSpares = 2
	// spareTime is how long one waits for its request.
	spareTime = 10 * time.Second
)

// spares are connections that are opened while the image is resolved, where a host has
// HTTP/1.1 alone. What refers to an image is asked for as soon as its digest is known, several
// questions at once; their handshakes would take longer than their answers. So would those of
// the layers of an image that is withheld until its evidence is there.
type spares struct {
	mu    sync.Mutex
	known map[string][]*spare // by scheme and address
}

// spare is one connection that is open or on its way.
type spare struct {
	done chan struct{} // closed when the rest is set
	conn net.Conn
	err  error
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// open opens the connections that are missing to n.
func (s *spares) open(ctx context.Context, key, address string, n int, dial dialer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[string][]*spare{}
	}
	for len(s.known[key]) < n {
		made := &spare{done: make(chan struct{})}
		s.known[key] = append(s.known[key], made)
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), spareTime)
			defer cancel()
			defer close(made.done)
			made.conn, made.err = dial(ctx, "tcp", address)
			time.AfterFunc(spareTime, func() { s.drop(key, made) })
		}()
	}
}

// drop closes a connection that no request has taken.
func (s *spares) drop(key string, of *spare) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.known[key] {
		if other != of {
			continue
		}
		s.known[key] = append(s.known[key][:i:i], s.known[key][i+1:]...)
		if of.conn != nil {
			_ = of.conn.Close() // nobody has used it
		}
		break
	}
	if len(s.known[key]) == 0 {
		delete(s.known, key)
	}
}

// close closes all that no request has taken: the next pull opens its own.
func (s *spares) close() {
	s.mu.Lock()
	known := s.known
	s.known = nil
	s.mu.Unlock()
	for _, of := range known {
		for _, spare := range of {
			go spare.discard()
		}
	}
}

// discard closes the connection once it is open.
func (s *spare) discard() {
	if <-s.done; s.conn != nil {
		_ = s.conn.Close() // nobody has used it
	}
}

// has reports whether there is a connection that is open or on its way.
func (s *spares) has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.known[key]) > 0
}

// take returns a connection that is open or on its way, nil where there is none, or none
// could be opened.
func (s *spares) take(ctx context.Context, key string) net.Conn {
	s.mu.Lock()
	known := s.known[key]
	if len(known) == 0 {
		s.mu.Unlock()
		return nil
	}
	first := known[0]
	s.known[key] = known[1:]
	s.mu.Unlock()
	select {
	case <-first.done:
		return first.conn
	case <-ctx.Done():
		go first.discard()
		return nil
	}
}

// or returns a dialer that takes a spare connection before it dials.
func (s *spares) or(scheme string, dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if conn := s.take(ctx, scheme+address); conn != nil {
			return conn, nil
		}
		return dial(ctx, network, address)
	}
}

// overTLS returns a dialer that speaks TLS, as http.Transport does by itself.
func overTLS(c *http.Transport) dialer {
	dial, config, timeout := c.DialContext, c.TLSClientConfig, c.TLSHandshakeTimeout
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		named := config.Clone()
		if named.ServerName == "" {
			named.ServerName, _, _ = net.SplitHostPort(address)
		}
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		secure := tls.Client(conn, named)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return secure, nil
	}
}

type aheadKey struct{}

// ahead is what will follow the requests of a context.
type ahead struct{ withheld bool }

// WithReferrersAhead says that requests for referrers will follow those of the context; withheld,
// that those for layers will come later, all at once.
func WithReferrersAhead(ctx context.Context, withheld bool) context.Context {
	return context.WithValue(ctx, aheadKey{}, ahead{withheld})
}

// openAhead has a request of the image, once it is connected, open connections for ours.
func (t *transport) openAhead(req *http.Request) *http.Request {
	ctx := req.Context()
	follows, ok := ctx.Value(aheadKey{}).(ahead)
	if !ok || isOurs(ctx) || t.direct == nil || t.viaProxy(req) {
		return req
	}
	u := req.URL
	return req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		secure, ok := info.Conn.(*tls.Conn)
		if info.Reused || ok != (u.Scheme == "https") || ok && secure.ConnectionState().NegotiatedProtocol == "h2" {
			return
		}
		t.openSpares(ctx, u, follows)
	}}))
}

func (t *transport) openSpares(ctx context.Context, u *url.URL, follows ahead) {
	dial := t.direct
	if u.Scheme == "https" {
		dial = t.secure
	}
	t.spares.open(ctx, spareKey(u), spareAddress(u), maxSpares, dial)
	if follows.withheld {
		t.layers.open(ctx, spareKey(u), spareAddress(u), maxLayerSpares, dial)
	}
}

func spareAddress(u *url.URL) string { return net.JoinHostPort(u.Hostname(), port(u)) }

func spareKey(u *url.URL) string { return u.Scheme + spareAddress(u) }

func (t *transport) viaProxy(req *http.Request) bool {
	if t.ours.Proxy == nil {
		return false
	}
	proxy, err := t.ours.Proxy(req)
	return proxy != nil || err != nil
}
