package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"golang.org/x/net/http/httpguts"
)

const (
	// maxTokens is how many tokens are remembered, of all registries.
	maxTokens = 1024
	// maxToken is the longest that is remembered, in bytes.
	maxToken = 8 << 10
	// maxTokenAnswer is how much of a token service's answer is read, in bytes.
	maxTokenAnswer = 1 << 20
	// maxTokenTime is how long a token is remembered, whatever its service says.
	maxTokenTime = time.Hour
	// defaultTokenTime is how long a token lasts that does not say ("expires_in" of the
	// distribution project's token authentication).
	defaultTokenTime = time.Minute
	// tokenTimeout is how long a token may take, whoever still waits for it.
	tokenTimeout = time.Minute
)

// tokenKey is what a token is for. A client never gets a token of another: who tells them
// apart.
type tokenKey struct {
	session *session
	client  *http.Client // of the session, whose TLS configuration and header asked for it
	realm   string
	service string
	scopes  string // sorted, separated by spaces
	who     string // hash of the client's credentials, "" for anonymous
	// ours is of a token that only a request of ours was challenged for. It never
	// authorizes a request of the image.
	ours bool
}

// token is one that is fetched or there.
type token struct {
	began   time.Time
	done    chan struct{} // closed when the rest is set
	value   string
	err     error
	expires time.Time
	endless bool // its service does not say when it expires
}

// tokens fetches each token once, for all who need it at the same time, and remembers it
// until it expires. The zero value is ready.
type tokens struct {
	mu    sync.Mutex
	known map[tokenKey]*token
}

// fetchToken returns a token's value and how long it lasts, 0 where its service does not
// say.
type fetchToken func(ctx context.Context) (value string, lasts time.Duration, err error)

// get returns the token, which was asked for since the given time. A pull keeps one that does
// not say when it expires until the registry refuses it, as containerd does. Where fetching fails,
// the next who needs it tries again. A context that ends ends the wait alone: others may
// wait for the same token, the image among them.
func (t *tokens) get(ctx context.Context, key tokenKey, since, pull time.Time, fetch fetchToken) (*token, error) {
	t.mu.Lock()
	known := t.known[key]
	if known == nil || known.began.Before(since) || known.over(pull) {
		known = &token{began: time.Now(), done: make(chan struct{})}
		t.add(key, known)
		go t.fetch(context.WithoutCancel(ctx), key, known, fetch)
	}
	t.mu.Unlock()
	select {
	case <-known.done:
		return known, known.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (t *tokens) fetch(ctx context.Context, key tokenKey, known *token, fetch fetchToken) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	value, lasts, err := fetch(ctx)
	if known.endless = lasts <= 0; known.endless {
		lasts = defaultTokenTime
	}
	lasts = min(lasts, maxTokenTime)
	lasts -= min(lasts/10, 10*time.Second) // for the way to the registry
	known.value, known.err, known.expires = value, err, known.began.Add(lasts)
	if err != nil || len(value) > maxToken || !httpguts.ValidHeaderFieldValue(value) {
		t.drop(key, known)
	}
	close(known.done)
}

func (t *tokens) drop(key tokenKey, known *token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[key] == known {
		delete(t.known, key)
	}
}

// over reports whether the token is there and has expired, for a pull that began at the given
// time.
func (t *token) over(pull time.Time) bool {
	select {
	case <-t.done:
		return time.Now().After(t.expires) && (!t.endless || t.began.Before(pull))
	default:
		return false
	}
}

// add remembers a token in the place of those that are over, or of the oldest.
func (t *tokens) add(key tokenKey, made *token) {
	if t.known == nil {
		t.known = map[tokenKey]*token{}
	}
	if len(t.known) >= maxTokens {
		var oldest tokenKey
		var began time.Time
		for other, token := range t.known {
			if token.over(time.Now()) {
				delete(t.known, other)
			} else if began.IsZero() || token.began.Before(began) {
				oldest, began = other, token.began
			}
		}
		if len(t.known) >= maxTokens {
			delete(t.known, oldest)
		}
	}
	t.known[key] = made
}

// forget drops the tokens of a session.
func (t *tokens) forget(of *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key := range t.known {
		if key.session == of {
			delete(t.known, key)
		}
	}
}

// fetchFrom asks the token service, as containerd's authorizer does: with POST where there
// are credentials (OAuth 2.0), with GET where there are none or the service does not know
// POST.
func fetchFrom(ctx context.Context, client *http.Client, header http.Header, to auth.TokenOptions) (string, time.Duration, error) {
	seconds := func(n int) time.Duration { return time.Duration(min(n, int(maxTokenTime/time.Second))) * time.Second }
	if to.Secret != "" {
		resp, err := auth.FetchTokenWithOAuth(ctx, client, header, "containerd-client", to)
		if err == nil {
			return resp.AccessToken, seconds(resp.ExpiresInSeconds), nil
		}
		if !lacksPost(err, to) {
			return "", 0, fmt.Errorf("fetch a token with the client's credentials: %w", plainError(err))
		}
	}
	resp, err := auth.FetchToken(ctx, client, header, to)
	if err != nil {
		return "", 0, fmt.Errorf("fetch a token: %w", plainError(err))
	}
	return resp.Token, seconds(resp.ExpiresInSeconds), nil
}

// lacksPost says which answers of a token service mean that it has no POST: 404 as of
// Google's, 401 of Artifactory's, 400 of ACR's, 405 of any that knows it by name.
func lacksPost(err error, to auth.TokenOptions) bool {
	var status remoteserrors.ErrUnexpectedStatus
	if !errors.As(err, &status) {
		return false
	}
	switch status.StatusCode {
	case http.StatusNotFound, http.StatusUnauthorized, http.StatusBadRequest:
		return true
	}
	return status.StatusCode == http.StatusMethodNotAllowed && to.Username != ""
}

// boundedAnswers cuts what a token service answers. A request to one can be made again, POST as
// well, over a connection of an earlier pull that the service closed in the same moment.
type boundedAnswers struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b boundedAnswers) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header[idempotent] = nil
	resp, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, maxTokenAnswer}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, tooLarge(maxTokenAnswer, "of the token service holds more")
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// checkTokenRedirect follows a token service that a request of ours was sent to, but not to
// where [checkChallenge] would not send anyone: what answers there is sent to the registry,
// as a token. The error is errdefs.ErrPermissionDenied.
func checkTokenRedirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	switch {
	case len(via) > DefaultLimits.Redirects:
		return fmt.Errorf("stopped after %d redirects of the token service: %w", DefaultLimits.Redirects, errdefs.ErrPermissionDenied)
	case from.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("refused redirect of the token service at %s to %.200q: it is not encrypted: %w", from.Host, redact(req.URL), errdefs.ErrPermissionDenied)
	case linkLocal(req.URL.Hostname()) && !linkLocal(from.Hostname()):
		return fmt.Errorf("refused redirect of the token service at %s to the link-local address %.200q: %w", from.Host, req.URL.Hostname(), errdefs.ErrPermissionDenied)
	}
	return nil
}
