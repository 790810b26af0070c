package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Connections for requests of ours are opened while the image's first request is on its
// way, and only where each request will need one of its own.
func TestConnectionsAreOpenedAhead(t *testing.T) {
	for name, tc := range map[string]struct {
		secure, http2, asked bool
		want                 int // connections once the image's request and as many of ours as there are spares were made
		ahead                int // of them, before any of ours
	}{
		"HTTP/1.1 over TLS":    {secure: true, asked: true, want: 1 + maxSpares, ahead: 1 + maxSpares},
		"HTTP/1.1":             {asked: true, want: 1 + maxSpares, ahead: 1 + maxSpares},
		"HTTP/2":               {secure: true, http2: true, asked: true, want: 1, ahead: 1},
		"no referrers to come": {secure: true, want: 1 + maxSpares, ahead: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			opened, waiting := 0, 0
			all := make(chan struct{})
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/ours" { // at the same time
					mu.Lock()
					if waiting++; waiting == maxSpares {
						close(all)
					}
					mu.Unlock()
					<-all
				}
			}))
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					mu.Lock()
					defer mu.Unlock()
					opened++
				}
			}
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return opened
			}
			server.EnableHTTP2 = tc.http2
			if tc.secure {
				server.StartTLS()
			} else {
				server.Start()
			}
			defer server.Close()
			base := server.Client().Transport.(*http.Transport).Clone()
			base.ForceAttemptHTTP2, base.TLSNextProto = false, nil
			base.DialContext = (&net.Dialer{}).DialContext // httptest's own leads to the server under any name
			transport := newTransport(base, nil)
			defer transport.CloseIdleConnections()
			get := func(ctx context.Context, path string) error {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
				if err != nil {
					return err
				}
				resp, err := transport.RoundTrip(req)
				if err != nil {
					return err
				}
				return resp.Body.Close()
			}
			ctx := t.Context()
			if tc.asked {
				ctx = WithReferrersAhead(ctx, false)
			}
			if err := get(ctx, "/image"); err != nil {
				t.Fatal(err)
			}
			for range 500 {
				if count() >= tc.ahead {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if got := count(); got != tc.ahead {
				t.Errorf("%d connections before a request of ours, want %d", got, tc.ahead)
			}
			var wg sync.WaitGroup
			for range maxSpares {
				wg.Go(func() {
					if err := get(asOurs(t.Context(), true), "/ours"); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got := count(); got != tc.want {
				t.Errorf("%d connections, want %d", got, tc.want)
			}
			transport.spares.mu.Lock()
			defer transport.spares.mu.Unlock()
			if tc.asked && !tc.http2 && len(transport.spares.known["http"+server.Listener.Addr().String()]) > 0 {
				t.Error("a spare connection was left where a request dialled")
			}
		})
	}
}

// countedConn tells when it is closed.
type countedConn struct {
	net.Conn
	closed *atomic.Int32
}

func (c countedConn) Close() error {
	c.closed.Add(1)
	return nil
}

// What nobody takes is closed, what cannot be opened is dialled again, and a request that gives
// up leaves nothing open.
func TestSparesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s spares
		var closed atomic.Int32
		slow := func(ctx context.Context, _, _ string) (net.Conn, error) {
			time.Sleep(time.Second)
			return countedConn{closed: &closed}, ctx.Err()
		}
		s.open(t.Context(), "key", "address", maxSpares, slow)
		s.open(t.Context(), "key", "address", maxSpares, slow) // no more than there may be
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if conn := s.take(ctx, "key"); conn != nil {
			t.Error("a connection that is not open was taken")
		}
		if conn := s.take(t.Context(), "key"); conn == nil {
			t.Error("a connection on its way was not taken")
		}
		time.Sleep(2 * spareTime)
		synctest.Wait()
		if closed.Load() != maxSpares-1 || len(s.known) != 0 {
			t.Errorf("%d connections are closed, %d hosts known, want %d and none", closed.Load(), len(s.known), maxSpares-1)
		}
		closed.Store(0)
		s.open(t.Context(), "key", "address", maxSpares, slow)
		s.close() // the pull ends before they are open
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if closed.Load() != maxSpares || s.take(t.Context(), "key") != nil {
			t.Errorf("%d connections are closed with their pull, want %d", closed.Load(), maxSpares)
		}
		failed := errors.New("refused")
		s.open(t.Context(), "key", "address", maxSpares, func(context.Context, string, string) (net.Conn, error) { return nil, failed })
		dialled := s.or("", func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed })
		if _, err := dialled(t.Context(), "tcp", "key"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want that the request dials by itself", err)
		}
		time.Sleep(2 * spareTime)
		synctest.Wait()
		if len(s.known) != 0 {
			t.Error("a host stays known")
		}
	})
}
