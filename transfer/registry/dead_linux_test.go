package registry

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// mutable is a listener whose connections can go dead, as behind a middlebox that has forgotten
// them: nothing that is sent to them arrives, and no word of that comes back.
type mutable struct {
	net.Listener
	mu    sync.Mutex
	conns []*net.TCPConn
}

func (m *mutable) Accept() (net.Conn, error) {
	c, err := m.Listener.Accept()
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.conns = append(m.conns, c.(*net.TCPConn))
	}
	return c, err
}

func (m *mutable) mute(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	for _, c := range m.conns {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
		})
		if err != nil {
			t.Skip("this kernel has no socket filters (SO_ATTACH_FILTER), by which connections go dead here:", err)
		}
	}
}

// A connection of an earlier pull that is dead costs the next pull about a second: containerd's
// client would have made a new one.
func TestDeadConnectionDelaysNoPull(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const idle = 4
			var together sync.WaitGroup // the requests of the earlier pull, so that each has a connection
			together.Add(idle)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/together" {
					together.Done()
					together.Wait()
				}
				_, _ = io.WriteString(w, r.Proto)
			}))
			m := &mutable{Listener: server.Listener}
			server.Listener = m
			server.EnableHTTP2 = http2
			server.StartTLS()
			t.Cleanup(server.Close)
			base := docker.DefaultHTTPTransport(&tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}) //nolint:gosec // the default of crypto/tls is TLS 1.2
			client := &http.Client{Transport: newTransport(base, nil)}
			tokens := &http.Client{Transport: boundedAnswers{client.Transport}}
			get := func(path string) {
				began := time.Now()
				ask := func() (*http.Response, error) { return client.Get(server.URL + path) }
				if path == "/token" {
					ask = func() (*http.Response, error) {
						return tokens.Post(server.URL+path, "text/plain", strings.NewReader("secret"))
					}
				}
				resp, err := ask()
				if err != nil {
					t.Errorf("after %s: %v", time.Since(began), err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if took := time.Since(began); took > 2500*time.Millisecond {
					t.Errorf("the request took %s", took)
				}
			}
			var wg sync.WaitGroup
			for range idle { // of HTTP/1.1
				wg.Go(func() { get("/together") })
			}
			wg.Wait()
			time.Sleep(quietTime + quietTime/2) // between the pulls; the kernel knows no other clock
			m.mute(t)
			for _, path := range []string{"/", "/", "/token"} {
				wg.Go(func() { get(path) })
			}
			wg.Wait()
		})
	}
}
