package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

const (
	// maxCapabilities is how many endpoints are remembered.
	maxCapabilities = 256
	// capabilityTime is how long a host that lacks the endpoint is not asked for it
	// again: a registry that is upgraded is noticed then.
	capabilityTime = 10 * time.Minute
	// silenceTime is how long a redirect's target that failed is not asked again by
	// other pulls. It may be back at any moment.
	silenceTime = time.Minute
)

// Capabilities remember which hosts lack the referrers endpoint, in the life of their session:
// such a host is asked for the fallback tag at once. Registries differ by repository
// (Harbor's projects, Artifactory's repositories), so that each is remembered for itself.
// What is remembered saves requests and decides nothing: a subject is absent only if the
// tag's answer says so. The zero value is ready, and safe for concurrent use.
type Capabilities struct {
	mu    sync.Mutex
	known map[string]memory
	clock func() time.Time // nil is time.Now
}

// SetCapabilities has the repository use and add to what c remembers; nil remembers
// nothing beyond the repository's own life. It must be called before the first request.
func (r *Repository) SetCapabilities(c *Capabilities) { r.capabilities = c }

// lack says what kept a listing from coming from the endpoint, where the fallback tag may
// have it.
type lack struct {
	// code is what the endpoint answered, 0 where nothing came.
	code int
	// target is the other host that a redirect led to, "" where none did.
	target string
	// failed says that there may be an endpoint, whose answer did not come: whatever the
	// tag holds, the subject is unknown.
	failed bool
	// ownError says that the answer came with an error in JSON, as a registry writes it.
	ownError bool
	// recalled says that it was remembered, and nothing asked now.
	recalled bool
	detail   string
}

// status is what the lack makes of the subject by itself.
func (k lack) status() labels.Status {
	if k.failed {
		return labels.Unknown
	}
	return ""
}

// saysNone reports whether the tag's 404 means that there are no referrers
// (OCI distribution-spec, "Referrers Tag Schema"). Whatever answers 405 may keep the
// registry from being asked.
func (k lack) saysNone() bool { return !k.failed && k.code == http.StatusNotFound }

// memory is a lack that is remembered.
type memory struct {
	lack
	at    time.Time
	keeps time.Duration // 0 is the life of the repository
}

// told says what was answered, and when.
func (m memory) told(now time.Time) string {
	what := fmt.Sprintf("answered %d", m.code)
	switch {
	case m.target != "" && m.failed:
		what = fmt.Sprintf("its redirect to %s failed", m.target)
	case m.target != "":
		what = fmt.Sprintf("redirected to %s, which answered %d", m.target, m.code)
	}
	keeps := "remembered for this pull"
	if m.keeps > 0 {
		keeps = "remembered for " + briefly(m.keeps)
	}
	return fmt.Sprintf("not asked: %s %s ago (%s)", what, briefly(now.Sub(m.at)), keeps)
}

func briefly(d time.Duration) string {
	s := d.Truncate(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

func (c *Capabilities) now() time.Time {
	if c.clock != nil {
		return c.clock()
	}
	return time.Now()
}

// recall returns what is remembered of the endpoint.
func (c *Capabilities) recall(endpoint string) (memory, bool) {
	if c == nil {
		return memory{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.known[endpoint]
	if ok && m.keeps > 0 && c.now().Sub(m.at) >= m.keeps {
		delete(c.known, endpoint)
		return memory{}, false
	}
	return m, ok
}

// remember keeps a lack for that long. The oldest makes room: it costs its repository's
// next pull one request.
func (c *Capabilities) remember(endpoint string, k lack, keeps time.Duration) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[string]memory{}
	}
	if _, ok := c.known[endpoint]; !ok && len(c.known) >= maxCapabilities {
		oldest := ""
		for e, m := range c.known {
			if oldest == "" || m.at.Before(c.known[oldest].at) {
				oldest = e
			}
		}
		delete(c.known, oldest)
	}
	c.known[endpoint] = memory{lack: k, at: c.now(), keeps: keeps}
}

// endpoint names the referrers endpoint of the repository at the host, for subjects of
// one algorithm: an endpoint that refuses sha512 may know sha256.
func (r *Repository) endpoint(h *Host, algorithm digest.Algorithm) string {
	return h.remembered(r.URL(h, "referrers", algorithm.String()))
}

// remembered names an address for what is remembered of it in the daemon's life. A host with
// another configuration, such as another certificate authority, may be another host behind it.
func (h *Host) remembered(u *url.URL) string { return h.session + " " + u.String() }

// recall returns what this pull, or another in the daemon's life, learnt of the endpoint.
func (r *Repository) recall(ctx context.Context, h *Host, endpoint string) (told string, k lack, ok bool) {
	for _, c := range []*Capabilities{&r.endpoints.Capabilities, r.capabilities} {
		m, ok := c.recall(endpoint)
		if !ok {
			continue
		}
		now := c.now()
		if m.keeps > 0 {
			record(ctx, outcome.MemoryCapability, h.Host, now.Sub(m.at))
		}
		m.recalled = true
		return m.told(now), m.lack, true
	}
	return "", lack{}, false
}
