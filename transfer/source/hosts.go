package source

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// hosts remembers the registry hosts of a pull. containerd's resolver asks for
// them again at every turn and gets new clients and authorizers each time, so
// that a pull authenticates and shakes hands twice.
type hosts struct {
	configure docker.RegistryHosts
	gate      gate

	mu    sync.Mutex
	whole bool // see wholeTransport
	known map[string][]docker.RegistryHost
}

func (h *hosts) get(host string) ([]docker.RegistryHost, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known, ok := h.known[host]; ok {
		return known, nil
	}
	configured, err := h.configure(host)
	if err != nil {
		return nil, err
	}
	locks := map[docker.Authorizer]docker.Authorizer{}
	for i, host := range configured {
		if host.Authorizer == nil {
			continue
		}
		if locks[host.Authorizer] == nil {
			locks[host.Authorizer] = &lockedAuthorizer{inner: host.Authorizer, gate: &h.gate}
		}
		configured[i].Authorizer = locks[host.Authorizer]
	}
	resumeSessions(configured)
	if h.whole {
		wrapWhole(configured)
	}
	if h.known == nil {
		h.known = map[string][]docker.RegistryHost{}
	}
	h.known[host] = configured
	return configured, nil
}

// resumeSessions has the connections of one pull, which are several at a time,
// resume the TLS session of the first (RFC 8446, "Resumption and Pre-Shared Key"):
// neither side signs or verifies again what it has just proved.
func resumeSessions(configured []docker.RegistryHost) {
	for _, host := range configured {
		if host.Client == nil {
			continue
		}
		t, ok := host.Client.Transport.(*http.Transport)
		if ok && t.TLSClientConfig != nil && t.TLSClientConfig.ClientSessionCache == nil {
			t.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		}
	}
}

func (h *hosts) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, configured := range h.known {
		for _, host := range configured {
			if host.Client != nil {
				host.Client.CloseIdleConnections()
			}
		}
	}
}

// lockedAuthorizer lets one request at a time authorize. containerd's authorizer
// reads a token's expiry while another request, which fetches it, may be writing
// it; requests that need a token that is being fetched wait for it in any case.
type lockedAuthorizer struct {
	mu    sync.Mutex
	inner docker.Authorizer
	gate  *gate
}

func (a *lockedAuthorizer) Authorize(ctx context.Context, req *http.Request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.inner.Authorize(ctx, req)
	if err == nil && req.Header.Get("Authorization") != "" {
		a.gate.open(true)
	}
	return err
}

func (a *lockedAuthorizer) AddResponses(ctx context.Context, responses []*http.Response) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inner.AddResponses(ctx, responses)
}
