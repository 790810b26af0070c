package registry

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/errdefs"
)

// checkChallenge refuses a challenge that names a token service which this
// registry must not send anyone to: without encryption, where the registry itself
// has it, or at the address of a cloud's metadata service. containerd's authorizer,
// which answers challenges, goes wherever they say (RFC 6750, section 3; "realm" of
// the distribution project's token authentication).
//
// It guards the requests of this package, and [GuardTokens] where such a service leads
// them. One whose token the image's own pull has fetched already meets no challenge, and
// has the token from wherever containerd went for it. What a name resolves to is
// not looked at: a registry without encryption can name a token service that is within
// reach of the node alone, and is sent what that answers if it reads like a token.
// The error is errdefs.ErrPermissionDenied.
func checkChallenge(resp *http.Response) error {
	from := resp.Request.URL
	for _, c := range auth.ParseAuthHeader(resp.Header) {
		if c.Scheme != auth.BearerAuth {
			continue
		}
		realm, err := url.Parse(c.Parameters["realm"])
		if err != nil {
			continue // the authorizer cannot read it either
		}
		switch {
		case from.Scheme == "https" && realm.Scheme == "http":
			return fmt.Errorf("refused token service %.200q: it is not encrypted, and the registry is: %w", redact(realm), errdefs.ErrPermissionDenied)
		case linkLocal(realm.Hostname()) && !linkLocal(from.Hostname()):
			return fmt.Errorf("refused token service at the link-local address %.200q: %w", realm.Hostname(), errdefs.ErrPermissionDenied)
		}
	}
	return nil
}
