package registry

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// http2Server is a server with HTTP/2 and HTTP/1.1 and a client of a session for it.
func http2Server(t *testing.T, serve func(w http.ResponseWriter, r *http.Request, cut func())) (*httptest.Server, *http.Client) {
	t.Helper()
	var mu sync.Mutex
	conns := map[string]net.Conn{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func() {
			mu.Lock()
			defer mu.Unlock()
			conns[r.RemoteAddr].Close()
		})
	}))
	server.Config.ConnState = func(c net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if tc, ok := c.(*tls.Conn); ok && s == http.StateNew {
			conns[c.RemoteAddr().String()] = tc.NetConn()
		}
	}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	base := docker.DefaultHTTPTransport(&tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}) //nolint:gosec // the default of crypto/tls is TLS 1.2
	return server, &http.Client{Transport: newTransport(base, nil)}
}

func getAs(ctx context.Context, client *http.Client, ours bool, url string) (string, error) {
	req, err := http.NewRequestWithContext(asOurs(ctx, ours), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return string(data), err
}

// What a firewall does to a connection over which a request for referrers comes does not fail
// the image.
func TestRequestForReferrersBreaksNoneOfTheImage(t *testing.T) {
	waiting := make(chan struct{}, 8)
	server, client := http2Server(t, func(w http.ResponseWriter, r *http.Request, cut func()) {
		switch {
		case strings.Contains(r.URL.Path, "/referrers/"):
			cut()
		case r.URL.Path == "/v2/manifest" && r.ProtoMajor == 2:
			waiting <- struct{}{}
			select {
			case <-r.Context().Done():
			case <-time.After(2 * time.Second):
			}
			_, _ = io.WriteString(w, "ok")
		default:
			_, _ = io.WriteString(w, "ok")
		}
	})
	if _, err := getAs(t.Context(), client, false, server.URL+"/v2/"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if got, err := getAs(t.Context(), client, false, server.URL+"/v2/manifest"); got != "ok" {
			t.Errorf("the image's request: %q, %v", got, err)
		}
	})
	<-waiting
	_, _ = getAs(t.Context(), client, true, server.URL+"/v2/referrers/x")
	wg.Wait()
}

// A server that cannot do what it offers by HTTP/2 is asked as containerd asks it.
func TestServerWhoseHTTP2IsBroken(t *testing.T) {
	server, client := http2Server(t, func(w http.ResponseWriter, r *http.Request, _ func()) {
		if r.ProtoMajor == 2 {
			panic(http.ErrAbortHandler) // resets the stream
		}
		_, _ = io.WriteString(w, "ok")
	})
	if got, err := getAs(t.Context(), client, false, server.URL); got != "ok" {
		t.Errorf("%q, %v", got, err)
	}
}

// A stream that is reset half way ends as a connection of HTTP/1.1 does: containerd then reads on
// with another request.
func TestStreamThatIsResetReadsAsACutConnection(t *testing.T) {
	server, client := http2Server(t, func(w http.ResponseWriter, _ *http.Request, _ func()) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	for _, large := range []bool{false, true} {
		ctx := t.Context()
		if large {
			ctx = WithSize(ctx, LargeBlob)
		}
		if got, err := getAs(ctx, client, false, server.URL); got != "half" || err != io.ErrUnexpectedEOF { //nolint:errorlint // as containerd compares it
			t.Errorf("large %v: %q, %v", large, got, err)
		}
	}
}

// One stream at a time is no reason for the image to wait for a request of ours.
func TestOneStreamAtATime(t *testing.T) {
	entered, release := make(chan struct{}, 8), make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/referrers/") {
			entered <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "ok")
	}))
	server.EnableHTTP2 = true
	server.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1}
	server.StartTLS()
	defer server.Close()
	defer close(release)
	base := docker.DefaultHTTPTransport(&tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}) //nolint:gosec // the default of crypto/tls is TLS 1.2
	client := &http.Client{Transport: newTransport(base, nil)}
	if _, err := getAs(t.Context(), client, false, server.URL); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		go func() { _, _ = getAs(t.Context(), client, true, server.URL+"/referrers/x") }()
	}
	for range 3 {
		<-entered
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for range 3 {
		if got, err := getAs(ctx, client, false, server.URL); got != "ok" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// A push outlives the connection: a manifest whose PUT is cut, or reset, is put again, whole.
func TestManifestIsPutAgainWhereHTTP2IsCut(t *testing.T) {
	body := strings.Repeat("manifest", 1000)
	for name, fails := range map[string]func(cut func()){
		"the connection is cut": func(cut func()) { cut() },
		"the stream is reset":   func(func()) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var puts []string
			server, client := http2Server(t, func(w http.ResponseWriter, r *http.Request, cut func()) {
				data, err := io.ReadAll(r.Body)
				mu.Lock()
				puts = append(puts, r.Proto)
				first := len(puts) == 1
				mu.Unlock()
				if first {
					fails(cut)
					return
				}
				if err != nil || string(data) != body {
					t.Errorf("%d bytes were put, %v, want %d", len(data), err, len(body))
				}
				w.WriteHeader(http.StatusCreated)
			})
			host := docker.RegistryHost{Client: client, Scheme: "https", Host: strings.TrimPrefix(server.URL, "https://"), Path: "/v2", Capabilities: docker.HostCapabilityPush}
			r, err := repositoryAt(t, host.Host, Limits{Attempts: 3, Backoff: time.Millisecond}, host).ForPush()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.PutManifest(t.Context(), r.hosts[0], "v1", "application/vnd.oci.image.manifest.v1+json", []byte(body)); err != nil {
				t.Errorf("the manifest was not put: %v, after %v", err, puts)
			}
		})
	}
}
