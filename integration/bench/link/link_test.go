package link

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestLinkCostsItsRoundTrips holds that a first request over TLS takes three round
// trips at least (TCP, TLS, HTTP) and the next on the same connection one, and that
// the server's word for a client is the link's.
func TestLinkCostsItsRoundTrips(t *testing.T) {
	var remotes []string
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		remotes = append(remotes, q.RemoteAddr)
	}))
	defer server.Close()
	const roundTrip = 20 * time.Millisecond
	l, err := Open(server.Listener.Addr().String(), roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	client := &http.Client{Transport: transport}
	for i, trips := range []time.Duration{3, 1} {
		began := time.Now()
		resp, err := client.Get("https://" + l.Host)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		took := time.Since(began)
		t.Logf("request %d took %s", i, took)
		if took < trips*roundTrip {
			t.Errorf("request %d took %s, want %d round trips of %s", i, took, trips, roundTrip)
		}
	}
	opened := l.Connections()
	if len(opened) != 1 || len(remotes) != 2 || remotes[0] != opened[0].Remote || remotes[1] != opened[0].Remote {
		t.Errorf("connections %v, the server saw %v; want one, and both requests on it", opened, remotes)
	}
	transport.CloseIdleConnections()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestClosedLinkEndsItsConnections holds that nothing stays open behind a link that is
// closed.
func TestClosedLinkEndsItsConnections(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }))
	defer server.Close()
	l, err := Open(server.Listener.Addr().String(), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		resp, err := http.Get("http://" + l.Host)
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	for polls := 0; len(l.Connections()) == 0; polls++ {
		if polls == 10_000 {
			t.Fatal("the link was not connected to")
		}
		time.Sleep(time.Millisecond)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("the request outlived the link")
	}
}
