package registry

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// given are a client's credentials for a host, asked for once a pull.
type given struct {
	done             chan struct{}
	username, secret string
	err              error
}

// ask returns the client's credentials for the host, "" where it has none. The client is
// asked out of the reach of the context, which ends the wait alone: asking cannot be
// interrupted. A client that could not answer is asked again.
func (a *Authorizer) ask(ctx context.Context, host string) (username, secret string, err error) {
	if a.image != nil {
		return a.image.ask(ctx, host)
	}
	if a.credentials == nil {
		return "", "", nil
	}
	a.mu.Lock()
	g := a.given[host]
	if g == nil {
		g = &given{done: make(chan struct{})}
		if a.given == nil {
			a.given = map[string]*given{}
		}
		a.given[host] = g
		go func() {
			defer close(g.done)
			if g.username, g.secret, g.err = a.credentials(host); g.err != nil {
				a.mu.Lock()
				defer a.mu.Unlock()
				delete(a.given, host)
			}
		}()
	}
	a.mu.Unlock()
	select {
	case <-g.done:
		return g.username, g.secret, g.err
	case <-ctx.Done():
		return "", "", context.Cause(ctx)
	}
}

// who tells clients of the session apart, without telling their secrets.
func (s *session) who(username, secret string) string {
	if secret == "" {
		return ""
	}
	hash := hmac.New(sha256.New, s.secret[:])
	fmt.Fprintf(hash, "%d %s %s", len(username), username, secret)
	return string(hash.Sum(nil))
}
