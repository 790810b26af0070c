package registry

import (
	"context"
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/pkg/reference"
)

// Client asks registries for one pull or push: the image's own requests, for which it has the
// hosts, and those of ours, for which it has the repository, share connections and tokens.
// It is safe for concurrent use, once UseSessions and ResolveByGet have been called.
type Client struct {
	ctx     context.Context // of the transfer, for logs
	options config.HostOptions

	mu           sync.Mutex
	sessions     *Sessions
	own          *Sessions // where the daemon's were not set
	resolveByGet bool      // see resolveTransport
	known        map[string][]docker.RegistryHost
}

// NewClient returns the client of a transfer, whose context is for logs. The options are
// those of Sessions.Hosts.
func NewClient(ctx context.Context, options config.HostOptions) *Client {
	return &Client{ctx: ctx, options: options}
}

// UseSessions has the client use, and add to, what the daemon remembers. It must come before
// the first request; without, nothing outlives the client.
func (c *Client) UseSessions(sessions *Sessions) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions = sessions
}

// ResolveByGet has the image resolved with GET, whose answer is kept for the fetcher. It is for
// images that are not there: registries count the GET against their limits. It must come before
// the first request.
func (c *Client) ResolveByGet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resolveByGet = true
}

// Hosts returns the hosts of the registry. containerd's resolver asks for them again at every
// turn; it gets the same ones, so that the client is asked for its credentials once.
func (c *Client) Hosts(registry string) ([]docker.RegistryHost, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.known[registry]; ok {
		return known, nil
	}
	if c.sessions == nil {
		c.own = &Sessions{}
		c.sessions = c.own
	}
	configured, err := c.sessions.Hosts(c.ctx, registry, c.options)
	if err != nil {
		return nil, err
	}
	if c.resolveByGet {
		wrapResolve(configured)
	}
	if c.known == nil {
		c.known = map[string][]docker.RegistryHost{}
	}
	c.known[registry] = configured
	return configured, nil
}

// Repository returns the repository that the reference names, at its registry's hosts, for
// requests of ours. They share neither the limiter nor the retries of the image's own.
func (c *Client) Repository(ref string, header http.Header, limits Limits) (*Repository, error) {
	spec, err := reference.Parse(ref)
	if err != nil {
		return nil, err
	}
	hosts, err := c.Hosts(spec.Hostname())
	if err != nil {
		return nil, err
	}
	return New(spec, hosts, header, limits), nil
}

// Known reports whether the registry of the reference is remembered, so that requests beside
// the one that resolves the image are probably not refused for want of a token, and whether many
// at once share a connection.
func (c *Client) Known(ref string) (known, multiplexed bool) {
	spec, err := reference.Parse(ref)
	if err != nil {
		return false, false
	}
	hosts, err := c.Hosts(spec.Hostname())
	if err != nil {
		return false, false
	}
	return remembersAny(hosts), areMultiplexed(hosts)
}

// Settled has the sessions remember what an image that could be resolved met.
func (c *Client) Settled() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range c.known {
		settle(known)
	}
}

// Close closes the connections that no session keeps, and those that nobody used. No request
// follows.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range c.known {
		closeSpares(known)
	}
	if c.own != nil {
		c.own.Close()
	}
}
