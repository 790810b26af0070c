package registry

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/errdefs"
)

// maxRealm is how long the realm and service of a challenge may be, in bytes, that is
// remembered.
const maxRealm = 2 << 10

// challenge is how a host wants requests to be authorized (RFC 7235, section 4.1). What it
// says of one repository, its scope, is not part of it.
type challenge struct {
	scheme         auth.AuthenticationScheme
	realm, service string
	learned        time.Time
}

// remember keeps how a host of the session wants the image's requests to be authorized.
func (s *session) remember(host string, c challenge) {
	if !s.configures(host) || len(c.realm)+len(c.service) > maxRealm {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.challenges[host] = c
	s.open = time.Time{}
}

// challenge returns what is remembered of the host.
func (s *session) challenge(host string) (challenge, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.challenges[host]
	if ok && time.Since(c.learned) > challengeTime {
		delete(s.challenges, host)
		return challenge{}, false
	}
	return c, ok
}

func (s *session) forget(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.challenges, host)
}

// configures reports whether the host is one of the registry's: redirects lead to others.
func (s *session) configures(host string) bool {
	for _, h := range s.hosts {
		if h.Host == host {
			return true
		}
	}
	return false
}

// checkChallenge refuses a challenge that names a token service which this
// registry must not send anyone to: without encryption, where the registry itself
// has it, or at the address of a cloud's metadata service (RFC 6750, section 3; "realm" of
// the distribution project's token authentication).
//
// It guards the requests of a [Repository]. The image's own go wherever containerd would,
// and a token that was fetched for them serves both. What a name resolves to is
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
