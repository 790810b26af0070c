package source

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// hosts remembers the registry hosts of a pull. containerd's resolver asks for
// them again at every turn and gets new clients and authorizers each time, so
// that a pull authenticates and shakes hands twice.
type hosts struct {
	configure docker.RegistryHosts
	gate      gate

	mu           sync.Mutex
	resolveByGet bool // see resolveTransport
	known        map[string][]docker.RegistryHost
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
	for _, host := range configured {
		if host.Client != nil {
			registry.GuardTokens(host.Client)
		}
	}
	if h.resolveByGet {
		wrapResolve(configured)
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

// lockedAuthorizer lets one request at a time authorize at a host. containerd's
// authorizer reads a token's expiry while another request, which fetches it, may be
// writing it; requests that need a token that is being fetched wait for it in any case.
// Mirrors mostly share the registry's authorizer, and must not wait for its tokens.
type lockedAuthorizer struct {
	inner docker.Authorizer
	gate  *gate

	mu    sync.Mutex
	hosts map[string]chan struct{} // full while a request has its turn
}

var _ registry.Turns = (*lockedAuthorizer)(nil)

// Turn implements registry.Turns. The error is the context's.
func (a *lockedAuthorizer) Turn(ctx context.Context, host string) (docker.Authorizer, func(), error) {
	a.mu.Lock()
	if a.hosts == nil {
		a.hosts = map[string]chan struct{}{}
	}
	turn := a.hosts[host]
	if turn == nil {
		turn = make(chan struct{}, 1)
		a.hosts[host] = turn
	}
	a.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return gatedAuthorizer{a.inner, a.gate}, func() { <-turn }, nil
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
}

func (a *lockedAuthorizer) Authorize(ctx context.Context, req *http.Request) error {
	authorizer, done, err := a.Turn(ctx, req.URL.Host)
	if err != nil {
		return err
	}
	defer done()
	return authorizer.Authorize(ctx, req)
}

func (a *lockedAuthorizer) AddResponses(ctx context.Context, responses []*http.Response) error {
	authorizer, done, err := a.Turn(ctx, responses[len(responses)-1].Request.URL.Host)
	if err != nil {
		return err
	}
	defer done()
	return authorizer.AddResponses(ctx, responses)
}

// gatedAuthorizer opens the gate with the first authorization.
type gatedAuthorizer struct {
	docker.Authorizer
	gate *gate
}

func (a gatedAuthorizer) Authorize(ctx context.Context, req *http.Request) error {
	err := a.Authorizer.Authorize(ctx, req)
	if err == nil && req.Header.Get("Authorization") != "" {
		a.gate.open(true)
	}
	return err
}
