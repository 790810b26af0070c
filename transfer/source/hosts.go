package source

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"

	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// hosts are the registry hosts of a pull. containerd's resolver asks for them again at
// every turn; it gets the same ones, so that the pull asks for its credentials once.
type hosts struct {
	ctx     context.Context // of the transfer, for logs
	options config.HostOptions

	mu           sync.Mutex
	sessions     *registry.Sessions
	own          *registry.Sessions // where the daemon's were not set
	resolveByGet bool               // see resolveTransport
	known        map[string][]docker.RegistryHost
}

func (h *hosts) get(host string) ([]docker.RegistryHost, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known, ok := h.known[host]; ok {
		return known, nil
	}
	if h.sessions == nil {
		h.own = &registry.Sessions{}
		h.sessions = h.own
	}
	configured, err := h.sessions.Hosts(h.ctx, host, h.options)
	if err != nil {
		return nil, err
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

// settled has the sessions remember what the resolved image met.
func (h *hosts) settled() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, known := range h.known {
		registry.Settled(known)
	}
}

// close closes the connections that no session keeps, and those that nobody used.
func (h *hosts) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, known := range h.known {
		registry.Finished(known)
	}
	if h.own != nil {
		h.own.Close()
	}
}
