package registry

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
)

// Requests share a connection where they may, by HTTP/2; a large layer has its own, and so
// have requests of ours where there is HTTP/1.1 alone.
func TestConnectionsByProtocol(t *testing.T) {
	for name, tc := range map[string]struct {
		http2 bool
		want  []string // the protocol of each request, and which connection it came over
	}{
		"HTTP/2":         {true, []string{"HTTP/2.0 a", "HTTP/2.0 a", "HTTP/1.1 b", "HTTP/2.0 a"}},
		"HTTP/1.1 alone": {false, []string{"HTTP/1.1 a", "HTTP/1.1 b", "HTTP/1.1 c", "HTTP/1.1 a"}},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var got []string
			names := map[string]string{}
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if names[r.RemoteAddr] == "" {
					names[r.RemoteAddr] = string(rune('a' + len(names)))
				}
				got = append(got, r.Proto+" "+names[r.RemoteAddr])
			}))
			server.EnableHTTP2 = tc.http2
			server.StartTLS()
			defer server.Close()
			trusted := server.Client().Transport.(*http.Transport).TLSClientConfig
			transport := newTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted.RootCAs}}, nil) //nolint:gosec // the default of crypto/tls is TLS 1.2
			defer transport.CloseIdleConnections()
			image, large := t.Context(), WithSize(t.Context(), LargeBlob)
			for _, ctx := range []context.Context{image, asOurs(large, true), large, image} {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// A further connection resumes the session of the first, whichever it is for.
func TestConnectionsResumeTheirSession(t *testing.T) {
	var resumed []bool
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		resumed = append(resumed, r.TLS.DidResume)
	}))
	defer server.Close()
	trusted := server.Client().Transport.(*http.Transport).TLSClientConfig
	transport := newTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted.RootCAs}}, nil) //nolint:gosec // the default of crypto/tls is TLS 1.2
	defer transport.CloseIdleConnections()
	for _, ours := range []bool{false, true} {
		req, err := http.NewRequestWithContext(asOurs(t.Context(), ours), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if !slices.Equal(resumed, []bool{false, true}) {
		t.Errorf("resumed: %v, want the second connection alone", resumed)
	}
}
