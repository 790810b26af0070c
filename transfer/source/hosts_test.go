package source

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// Many requests at once that all need the first token fetch it once, and race for
// nothing (with -race).
func TestHostsAreRememberedAndAuthorizeTogether(t *testing.T) {
	var tokens atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		tokens.Add(1)
		_ = json.NewEncoder(w).Encode(map[string]any{"token": "t", "expires_in": 300})
	}))
	defer server.Close()
	configured := 0
	h := &hosts{configure: func(string) ([]docker.RegistryHost, error) {
		configured++
		a := docker.NewDockerAuthorizer(docker.WithAuthClient(server.Client()))
		return []docker.RegistryHost{{Client: server.Client(), Authorizer: a}, {Client: server.Client(), Authorizer: a}}, nil
	}}
	defer h.close()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			known, err := h.get("registry.example.com")
			if err != nil || known[0].Authorizer != known[1].Authorizer {
				t.Errorf("%v, %v", known, err)
				return
			}
			req, err := http.NewRequest(http.MethodGet, "http://registry.example.com/v2/", nil)
			if err != nil {
				t.Error(err)
				return
			}
			challenge := &http.Response{StatusCode: http.StatusUnauthorized, Request: req, Header: http.Header{
				"Www-Authenticate": {`Bearer realm="` + server.URL + `",service="s",scope="repository:a:pull"`},
			}}
			a := known[0].Authorizer
			if err := a.AddResponses(t.Context(), []*http.Response{challenge}); err != nil {
				t.Error(err)
				return
			}
			if err := a.Authorize(t.Context(), req); err != nil || req.Header.Get("Authorization") != "Bearer t" {
				t.Errorf("%v, %v", req.Header, err)
			}
		})
	}
	wg.Wait()
	if configured != 1 || tokens.Load() != 1 {
		t.Errorf("configured %d times, %d tokens; want 1 of each", configured, tokens.Load())
	}
}

// A pull's second connection resumes the session of its first.
func TestConnectionsResumeTheirSession(t *testing.T) {
	var resumed []bool
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		resumed = append(resumed, r.TLS.DidResume)
	}))
	defer server.Close()
	h := &hosts{configure: func(string) ([]docker.RegistryHost, error) {
		return []docker.RegistryHost{{Client: server.Client()}}, nil
	}}
	defer h.close()
	for range 2 {
		known, err := h.get("registry.example.com")
		if err != nil {
			t.Fatal(err)
		}
		resp, err := known[0].Client.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		known[0].Client.CloseIdleConnections()
	}
	if len(resumed) != 2 || resumed[0] || !resumed[1] {
		t.Errorf("resumed: %v, want the second connection alone", resumed)
	}
}

// A host whose token service hangs delays no other, though they share an authorizer, and
// who waits for a turn there can give up.
func TestTokensOfOneHostDelayNoOther(t *testing.T) {
	h := &hosts{configure: func(string) ([]docker.RegistryHost, error) {
		a := docker.NewDockerAuthorizer()
		return []docker.RegistryHost{{Host: "mirror.test", Authorizer: a}, {Host: "registry.test", Authorizer: a}}, nil
	}}
	defer h.close()
	known, err := h.get("registry.test")
	if err != nil {
		t.Fatal(err)
	}
	request := func(host string) *http.Request {
		req, err := http.NewRequest(http.MethodGet, "http://"+host+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	a := known[0].Authorizer
	_, done, err := a.(registry.Turns).Turn(t.Context(), "mirror.test") // as a request whose token does not come
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if err := known[1].Authorizer.Authorize(t.Context(), request("registry.test")); err != nil {
		t.Errorf("at the other host: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Authorize(ctx, request("mirror.test")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that the wait ends with its request", err)
	}
}

// A token service that redirects to a cloud's metadata is not followed for referrers,
// whoever shares the client.
func TestHostsGuardTheirTokens(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			http.Redirect(w, r, "http://169.254.169.254/latest/", http.StatusFound)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	address := server.Listener.Addr().String()
	h := &hosts{resolveByGet: true, configure: func(string) ([]docker.RegistryHost, error) {
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			if to != address {
				t.Errorf("%s was connected to", to)
				return nil, net.ErrClosed
			}
			return (&net.Dialer{}).DialContext(ctx, network, to)
		}}}
		host := docker.RegistryHost{
			Client: client, Authorizer: docker.NewDockerAuthorizer(docker.WithAuthClient(client)),
			Scheme: "http", Host: address, Path: "/v2", Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		}
		return []docker.RegistryHost{host, host}, nil
	}}
	defer h.close()
	known, err := h.get(address)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := reference.Parse(address + "/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	r := registry.New(spec, known, nil, registry.Limits{})
	for _, host := range r.Hosts(docker.HostCapabilityPull) {
		if _, err := r.Get(t.Context(), host, r.URL(host, "referrers", "x"), "*/*"); !errdefs.IsPermissionDenied(err) {
			t.Errorf("%v, want ErrPermissionDenied", err)
		}
	}
}
