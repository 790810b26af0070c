// Package registry is the one client of registries: it asks the hosts of a repository what
// refers to a subject, reads manifests and blobs, and puts manifests for a push. It trusts
// nothing that it reads.
//
// [Repository.List] asks the referrers endpoint (OCI distribution-spec, "Listing
// Referrers") page by page and, where a host has no such endpoint, the fallback tag; its
// [Listing] never says "absent" where the truth is "unknown". [Repository.CosignTag] looks for what cosign
// stored before referrers existed. Both only find; whether to take what they found is for
// the policy to say. What containerd's fetcher does not bound is bounded here: the size and
// time of every answer, retries, redirects and content encodings.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/containerd/v2/version"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits of one request. Zero values stand for the defaults, which are those of
// DefaultLimits.
type Limits struct {
	// Request is how long one attempt may take until its headers, and for
	// answers that are read whole until their end.
	Request time.Duration
	// Stall is the time in which a streamed body must deliver StallBytes, or
	// end.
	Stall      time.Duration
	StallBytes int64
	// Attempts is how often a request that failed temporarily is made in all.
	Attempts int
	// Backoff is the wait before the second attempt; it doubles, with jitter.
	Backoff time.Duration
	// RetryAfter caps what a Retry-After header may ask for.
	RetryAfter time.Duration
	// Redirects is how many are followed.
	Redirects int
}

// DefaultLimits are meant for a node that pulls an image and cannot wait long.
var DefaultLimits = Limits{
	Request:    10 * time.Second,
	Stall:      10 * time.Second,
	StallBytes: 64 << 10,
	Attempts:   5,
	Backoff:    250 * time.Millisecond,
	RetryAfter: 10 * time.Second,
	Redirects:  5,
}

// Repository is one repository, read through its registry hosts. It is meant for
// one pull: a host that turned out to be unreachable is not tried again. It is
// safe for concurrent use.
type Repository struct {
	spec   reference.Spec
	name   string // without the registry
	hosts  []*Host
	header http.Header
	limits Limits

	onRequest    func(Operation, int)
	notices      *Notices
	capabilities *Capabilities
	endpoints    *endpoints
	answers      *AnswerCache
	known        func(context.Context, digest.Digest) []byte
	push         bool      // requests ask for a token that may push
	asked        time.Time // when it was decided to ask a host, zero where there is but one
}

// Host is one registry host of the repository: the registry itself, or a mirror.
type Host struct {
	docker.RegistryHost
	health  *health // of the session, where there is one
	session string  // the session's id, "" where there is none

	mu      sync.Mutex
	down    error
	waiting map[*waiter]bool
}

// waiter is a request that waits for its headers.
type waiter struct{ end context.CancelCauseFunc }

// New returns the repository that the reference names, read through the hosts in
// their order. header is sent with every request, as containerd's resolver does. Where a
// host's authorizer is an *[Authorizer], the image's, the repository's requests use it
// without a trace.
func New(spec reference.Spec, hosts []docker.RegistryHost, header http.Header, limits Limits) *Repository {
	r := &Repository{
		spec:   spec,
		name:   strings.TrimPrefix(spec.Locator, spec.Hostname()+"/"),
		header: header.Clone(),
		limits: limits.withDefaults(),

		endpoints: &endpoints{},
	}
	// A resolver takes the client's Accept for itself; here each request
	// knows its own.
	r.header.Del("Accept")
	if r.header == nil {
		r.header = http.Header{}
	}
	if r.header.Get("User-Agent") == "" {
		r.header.Set("User-Agent", "containerd/"+version.Version)
	}
	besides := map[*Authorizer]*Authorizer{}
	for _, h := range hosts {
		host := &Host{health: &health{}}
		if a, ok := h.Authorizer.(*Authorizer); ok {
			if besides[a] == nil {
				besides[a] = a.beside()
			}
			h.Authorizer = besides[a]
			host.health, host.session = a.session.health(h.Host), a.session.id
		}
		host.RegistryHost = h
		r.hosts = append(r.hosts, host)
	}
	return r
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits
	return Limits{
		Request:    positive(l.Request, d.Request),
		Stall:      positive(l.Stall, d.Stall),
		StallBytes: positive(l.StallBytes, d.StallBytes),
		Attempts:   positive(l.Attempts, d.Attempts),
		Backoff:    positive(l.Backoff, d.Backoff),
		RetryAfter: positive(l.RetryAfter, d.RetryAfter),
		Redirects:  positive(l.Redirects, d.Redirects),
	}
}

func positive[N ~int | ~int64](n, otherwise N) N {
	if n > 0 {
		return n
	}
	return otherwise
}

// Name returns the repository's name with its registry, as references write it.
func (r *Repository) Name() string { return r.spec.Locator }

// Hosts returns the hosts that have all the given capabilities, in order.
func (r *Repository) Hosts(capabilities docker.HostCapabilities) []*Host {
	var out []*Host
	for _, h := range r.hosts {
		if h.Capabilities.Has(capabilities) {
			out = append(out, h)
		}
	}
	return out
}

// HostsWithAny returns the hosts that have one of the given capabilities, in order.
func (r *Repository) HostsWithAny(capabilities ...docker.HostCapabilities) []*Host {
	var out []*Host
	for _, h := range r.hosts {
		if slices.ContainsFunc(capabilities, h.Capabilities.Has) {
			out = append(out, h)
		}
	}
	return out
}

// IsMirror reports whether the host is a mirror of the registry, which it is then
// told with the parameter "ns".
func (r *Repository) IsMirror(h *Host) bool {
	registry := r.spec.Hostname()
	return h.Host != registry && (registry != "docker.io" || h.Host != "registry-1.docker.io")
}

// Down returns the error that made the host unreachable earlier in this pull, or
// nil.
func (h *Host) Down() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// await has end called if the host turns out to be down before the returned function is:
// what waits for it would only wait longer.
func (h *Host) await(end context.CancelCauseFunc) (done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting == nil {
		h.waiting = map[*waiter]bool{}
	}
	w := &waiter{end}
	h.waiting[w] = true
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.waiting, w)
	}
}

// markDown remembers a host that could not even be connected to, or that took
// too long to answer, and ends what waits for it.
func (h *Host) markDown(err error) {
	var op *net.OpError
	var dns *net.DNSError
	unconnected := errors.As(err, &dns) || errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect")
	if !unconnected && !errors.As(err, new(timeoutError)) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.health.fail(err.Error(), 0)
	if h.down == nil {
		h.down = fmt.Errorf("host %s is unreachable: %w", h.Host, err)
	}
	for w := range h.waiting {
		w.end(h.down)
	}
	clear(h.waiting)
}

// Fetcher fetches content by descriptor. [Repository] is one.
type Fetcher interface {
	// Manifest returns a manifest or index, verified.
	Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
	// Blob streams a blob, unverified, to use; more than once where a stream
	// broke.
	Blob(ctx context.Context, desc ocispec.Descriptor, use func(io.Reader) error) error
}

var _ Fetcher = (*Repository)(nil)
