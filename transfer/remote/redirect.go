package remote

import (
	"fmt"
	"net/http"

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
	if req.URL.Host != first.URL.Host {
		kept := http.Header{}
		for _, key := range []string{"Accept", "Accept-Encoding", "User-Agent"} {
			kept.Set(key, req.Header.Get(key))
		}
		req.Header = kept
	}
	return nil
}
