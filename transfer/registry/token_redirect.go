package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

// GuardTokens has the client refuse redirects from a token service that checkChallenge
// would refuse as one: what answers there is sent to the registry, as a token. It
// changes the client's transport, since containerd's authorizer has that client as well
// and its resolver gives up its own handling of redirects where CheckRedirect is set.
//
// Only requests for tokens that a [Repository] makes are refused. All others pass, those of
// the image's own pull among them, which goes where containerd goes.
func GuardTokens(client *http.Client) {
	if _, ok := client.Transport.(tokenGuard); ok {
		return // of another host that has the same client
	}
	inner := client.Transport
	if inner == nil {
		inner = http.DefaultTransport
	}
	client.Transport = tokenGuard{inner}
}

type tokenGuard struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (g tokenGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Response != nil && req.Context().Value(forToken{}) != nil {
		if err := checkTokenRedirect(req); err != nil {
			if req.Body != nil {
				req.Body.Close()
			}
			return nil, refusedToken{err}
		}
	}
	return g.RoundTripper.RoundTrip(req)
}

// CloseIdleConnections serves http.Client.CloseIdleConnections.
func (g tokenGuard) CloseIdleConnections() {
	if c, ok := g.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// forToken is the key of a context whose requests are for a token of ours.
type forToken struct{}

// checkTokenRedirect judges the last redirect that led to the request. The error is
// errdefs.ErrPermissionDenied.
func checkTokenRedirect(req *http.Request) error {
	from := req.Response.Request
	switch {
	case from == nil:
		return fmt.Errorf("refused redirect of a token service that cannot be named: %w", errdefs.ErrPermissionDenied)
	case from.URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("refused redirect of the token service at %s to %.200q: it is not encrypted: %w", from.URL.Host, redact(req.URL), errdefs.ErrPermissionDenied)
	case linkLocal(req.URL.Hostname()) && !linkLocal(from.URL.Hostname()):
		return fmt.Errorf("refused redirect of the token service at %s to the link-local address %.200q: %w", from.URL.Host, req.URL.Hostname(), errdefs.ErrPermissionDenied)
	}
	return nil
}

// refusedToken is the error of a token that was refused.
type refusedToken struct{ error }

func (r refusedToken) Unwrap() error { return r.error }

// authorizeOwn has the authorizer authorize a request of ours. It keeps a failed token for
// good, and serves the image's own pull too: one that we refuse it is made to forget, so
// that the image meets the challenge anew and fares as it would without us.
func authorizeOwn(ctx context.Context, a docker.Authorizer, req *http.Request) error {
	err := a.Authorize(ctx, req)
	if !errors.As(err, new(refusedToken)) {
		return err
	}
	// It lets go of what it has where a request that it authorized is called invalid twice.
	invalid := &http.Response{StatusCode: http.StatusUnauthorized, Request: req, Header: http.Header{
		"Www-Authenticate": {`Bearer error="invalid_token"`},
	}}
	_ = a.AddResponses(ctx, []*http.Response{invalid, invalid}) // says that it is invalid
	return err
}
