package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/errdefs"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// rememberedWait is how long a token of a challenge that is remembered may take before the host
// is asked what it wants now: its token service may be gone.
const rememberedWait = 2 * time.Second

// Authorizer answers the challenges of one pull's hosts, as containerd's own authorizer
// does, from what the session remembers where it can. It is a docker.Authorizer, for the
// requests of the image.
//
// A request of ours ([Authorizer.beside]) uses what the image's requests were challenged
// for, and gets a challenge of its own answered beside that: no answer to a request of ours
// may change what the image's requests do.
type Authorizer struct {
	session *session
	origin  *http.Client // of the session, one for each TLS configuration and header; shares tokens
	client  *http.Client // asks token services
	header  http.Header  // that they are sent (hosts.toml)
	// credentials asks the client for its own; nil where it has none.
	credentials func(host string) (username, secret string, err error)
	began       time.Time

	image *Authorizer // of the image's requests, nil for themselves

	mu       sync.Mutex
	handlers map[string]*handler
	given    map[string]*given
	lent     map[lent]bool // of what is remembered: what it authorized requests with
	believed map[lent]bool // of that: what a request of ours was refused with, and without
}

var _ docker.Authorizer = (*Authorizer)(nil)

// handler authorizes requests to one host. Its owner's lock guards it.
type handler struct {
	challenge
	scopes     []string  // of the challenge, beside the request's own
	since      time.Time // tokens that were asked for before do not serve
	remembered bool      // no challenge of this pull
	borrowed   bool      // the last token was not asked for in this pull
	failed     error     // of a token for a request of ours, which asks once a pull
}

// beside returns the authorizer for requests of ours.
func (a *Authorizer) beside() *Authorizer {
	return &Authorizer{session: a.session, origin: a.origin, client: a.client, header: a.header, credentials: a.credentials, began: a.began, image: a}
}

// Authorize implements docker.Authorizer.
func (a *Authorizer) Authorize(ctx context.Context, req *http.Request) error {
	host := req.URL.Host
	h := a.handler(host)
	if h == nil && a.image != nil {
		if h = a.image.handler(host); h == nil {
			return nil
		}
		value, err := a.image.authorization(ctx, host, h)
		if err == nil {
			req.Header.Set("Authorization", value)
		}
		if err != nil && ctx.Err() != nil {
			return err
		}
		return nil // without, the host says what it wants of this request
	}
	if h == nil {
		return nil
	}
	value, err := a.authorization(ctx, host, h)
	if err != nil {
		if h.remembered && ctx.Err() == nil { // or the wait alone is over
			a.drop(host, h) // the host says anew what it wants
			return nil
		}
		return err
	}
	req.Header.Set("Authorization", value)
	return nil
}

// AddResponses implements docker.Authorizer. The error is errdefs.ErrNotImplemented for a
// scheme that is not known, and docker.ErrInvalidAuthorization where a token that was
// fetched for the request is called invalid.
func (a *Authorizer) AddResponses(ctx context.Context, responses []*http.Response) error {
	last := responses[len(responses)-1]
	host := last.Request.URL.Host
	for _, c := range auth.ParseAuthHeader(last.Header) {
		switch {
		case c.Scheme == auth.BearerAuth:
			return a.challengedFor(ctx, host, c, responses)
		case c.Scheme == auth.BasicAuth && a.credentials != nil:
			username, secret, err := a.ask(ctx, host)
			if err != nil {
				return err
			}
			if username == "" || secret == "" {
				return fmt.Errorf("%w: no basic auth credentials", docker.ErrInvalidAuthorization)
			}
			h := &handler{challenge: challenge{scheme: auth.BasicAuth, learned: time.Now()}}
			a.set(host, h)
			if a.image == nil {
				a.session.remember(host, h.challenge)
			}
			return nil
		}
	}
	return fmt.Errorf("failed to find supported auth scheme: %w", errdefs.ErrNotImplemented)
}

// challengedFor answers a challenge for a token. A token that was asked for in this pull
// and is called invalid is fetched anew once; one that is remembered says nothing
// about the next.
func (a *Authorizer) challengedFor(ctx context.Context, host string, c auth.Challenge, responses []*http.Response) error {
	a.mu.Lock()
	known := a.handlers[host]
	renew := known == nil || known.remembered || known.borrowed
	if text := c.Parameters["error"]; text != "" && !renew {
		if again(responses) {
			delete(a.handlers, host)
			a.mu.Unlock()
			return fmt.Errorf("server message: %.64q: %w", text, docker.ErrInvalidAuthorization)
		}
		renew = true
	}
	a.mu.Unlock()
	if !renew {
		return nil // its token serves, or is on its way
	}
	to, err := auth.GenerateTokenOptions(ctx, host, "", "", c)
	if err != nil {
		return err
	}
	if _, _, err := a.ask(ctx, host); err != nil {
		return err
	}
	h := &handler{challenge: challenge{scheme: auth.BearerAuth, realm: to.Realm, service: to.Service, learned: time.Now()}, scopes: to.Scopes}
	if responses[len(responses)-1].Request.Header.Get("Authorization") != "" {
		h.since = time.Now()
	}
	a.set(host, h)
	return nil
}

// again reports whether the last two responses are to the same request.
func again(responses []*http.Response) bool {
	if len(responses) < 2 {
		return false
	}
	a, b := responses[len(responses)-2].Request, responses[len(responses)-1].Request
	return a.Method == b.Method && *a.URL == *b.URL
}

// authorization returns the header's value for a request to the host.
func (a *Authorizer) authorization(ctx context.Context, host string, h *handler) (string, error) {
	a.mu.Lock()
	failed, since := h.failed, h.since
	a.mu.Unlock()
	if failed != nil {
		return "", failed
	}
	if h.remembered {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rememberedWait)
		defer cancel()
	}
	username, secret, err := a.ask(ctx, host)
	if err != nil {
		return "", err
	}
	if h.scheme == auth.BasicAuth {
		if username == "" || secret == "" {
			return "", errors.New("failed to handle basic auth because missing username or secret")
		}
		value := "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+secret))
		if h.remembered {
			a.lend(host, value)
		}
		return value, nil
	}
	to := auth.TokenOptions{
		Realm: h.realm, Service: h.service, Scopes: docker.GetTokenScopes(ctx, h.scopes),
		Username: username, Secret: secret,
	}
	key := tokenKey{
		session: a.session, client: a.origin, realm: to.Realm, service: to.Service, scopes: strings.Join(to.Scopes, " "),
		who: a.session.who(username, secret), ours: a.image != nil,
	}
	token, err := a.session.sessions.tokens.get(ctx, key, since, a.began, func(ctx context.Context) (string, time.Duration, error) {
		return fetchFrom(asOurs(ctx, a.image != nil), a.tokenClient(), a.header, to)
	})
	if err == nil {
		a.authorized(ctx, host, h, token)
		return "Bearer " + token.value, nil
	}
	if a.image != nil && ctx.Err() == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		h.failed = err
	}
	return "", err
}

// authorized notes that the host's token is there.
func (a *Authorizer) authorized(ctx context.Context, host string, h *handler, token *token) {
	a.mu.Lock()
	h.borrowed = token.began.Before(a.began)
	borrowed, remembered := h.borrowed, h.remembered
	a.mu.Unlock()
	if borrowed || remembered {
		a.lend(host, "Bearer "+token.value)
	}
	// A scope that is not the repository's own, as where a mirror has it under another name,
	// is not what the host's next repository needs.
	own := slices.Equal(docker.GetTokenScopes(ctx, h.scopes), docker.GetTokenScopes(ctx, nil))
	if a.image == nil && !remembered && own {
		a.session.remember(host, h.challenge)
	}
	if remembered {
		record(ctx, outcome.MemoryChallenge, host, time.Since(h.learned))
	}
	if borrowed {
		record(ctx, outcome.MemoryToken, host, time.Since(token.began))
	}
	if o := a.session.sessions.Observer; o != nil {
		o.Authorized(borrowed)
	}
}

// tokenClient returns the client that asks token services. For the image it goes where
// containerd's would.
func (a *Authorizer) tokenClient() *http.Client {
	client := &http.Client{Transport: boundedAnswers{a.client.Transport}}
	if a.image != nil {
		client.CheckRedirect = checkTokenRedirect
	}
	return client
}

// handler returns the host's, from what the session remembers where this pull was not
// challenged.
func (a *Authorizer) handler(host string) *handler {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h, ok := a.handlers[host]; ok || a.image != nil {
		return h
	}
	c, ok := a.session.challenge(host)
	if !ok {
		return nil
	}
	h := &handler{challenge: c, remembered: true}
	a.put(host, h)
	return h
}

func (a *Authorizer) set(host string, h *handler) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.put(host, h)
}

func (a *Authorizer) put(host string, h *handler) {
	if a.handlers == nil {
		a.handlers = map[string]*handler{}
	}
	a.handlers[host] = h
}

// drop forgets a challenge that was remembered and does not serve.
func (a *Authorizer) drop(host string, h *handler) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.handlers[host] == h {
		a.handlers[host] = nil // until the host's next challenge
		a.session.forget(host)
	}
}

// challenged reports whether any of the image's requests was authorized.
func (a *Authorizer) challenged() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.handlers {
		if h != nil {
			return true
		}
	}
	return false
}
