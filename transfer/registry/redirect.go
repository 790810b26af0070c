package registry

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
)

// checkRedirect follows a registry to its storage, but lends no other host the
// registry's credentials or the operator's headers, and gives up no encryption.
func (r *Repository) checkRedirect(req *http.Request, via []*http.Request) error {
	last, first := via[len(via)-1], via[0]
	switch {
	case len(via) > r.limits.Redirects:
		return fmt.Errorf("stopped after %d redirects: %w", r.limits.Redirects, errdefs.ErrResourceExhausted)
	case last.URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("refused redirect from https to %s: %w", req.URL.Scheme, errdefs.ErrPermissionDenied)
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("refused redirect to scheme %q: %w", req.URL.Scheme, errdefs.ErrPermissionDenied)
	case linkLocal(req.URL.Hostname()) && !linkLocal(first.URL.Hostname()):
		return fmt.Errorf("refused redirect to the link-local address %s: %w", req.URL.Hostname(), errdefs.ErrPermissionDenied)
	}
	if !SameHost(req.URL, first.URL) {
		kept := http.Header{}
		for _, key := range []string{"Accept", "Accept-Encoding", "User-Agent"} {
			kept.Set(key, req.Header.Get(key))
		}
		req.Header = kept
	}
	return nil
}

// sameOrigin reports whether two addresses have the same scheme, host and port, however
// they spell them: "r.test:443" is "r.test" for https (RFC 3986, section 6.2.3).
func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && SameHost(a, b) }

// SameHost is sameOrigin but for the scheme: what answers http at a host's port may lead
// to https there, and containerd falls back from https to http where a registry is local.
func SameHost(a, b *url.URL) bool {
	if a.Scheme == b.Scheme {
		return strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
	}
	return strings.EqualFold(a.Host, b.Host)
}

// port returns the port of an address, written or not.
func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}
