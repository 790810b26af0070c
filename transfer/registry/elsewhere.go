package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
)

// Where a registry redirects to, another host may answer in its place. GHCR sends the
// referrers endpoint to a site that knows nothing of it, or that a firewall hides;
// registry.k8s.io sends everything to its backend. A listing of any of them is taken. But
// that there is nothing, only a host says that has the registry's manifests.

// elsewhereError is of a request that failed at another host, to which a redirect led.
type elsewhereError struct {
	error
	host string
}

func (e *elsewhereError) Unwrap() error { return e.error }

// failedAt is the error of a request that failed at the address asked last.
func failedAt(q request, asked *url.URL, err error) error {
	err = fmt.Errorf("%s %s: %w", q.method, redact(asked), err)
	if SameHost(asked, q.url) {
		return err
	}
	return &elsewhereError{err, asked.Host}
}

// elsewhere returns the other host that answered, or failed to, in place of the one that
// was asked; "" where it was that one.
func elsewhere(asked, answered *url.URL, err error) string {
	if failed := new(elsewhereError); errors.As(err, &failed) {
		return failed.host
	}
	if answered != nil && !SameHost(answered, asked) {
		return answered.Host
	}
	return ""
}

// foreign reports whether an impatient request came to another host: what that does says
// nothing of the one that was asked.
func (q request) foreign(resp *http.Response, err error) bool {
	var answered *url.URL
	if resp != nil {
		answered = resp.Request.URL
	}
	return q.impatient && elsewhere(q.url, answered, err) != ""
}

// endpoints is what one pull learns of endpoints and redirects.
type endpoints struct {
	Capabilities

	mu      sync.Mutex
	waiting map[string]map[*waiter]bool // requests to the endpoint

	proving   sync.Mutex
	manifests map[*Host]*url.URL // where the host's manifests come from, nil if not known
}

// await returns a context that ends if the endpoint turns out to lead to a host that is
// silent, and a function to call when the answer is there.
func (e *endpoints) await(ctx context.Context, endpoint string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &waiter{cancel}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting == nil {
		e.waiting = map[string]map[*waiter]bool{}
	}
	if e.waiting[endpoint] == nil {
		e.waiting[endpoint] = map[*waiter]bool{}
	}
	e.waiting[endpoint][w] = true
	return ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.waiting[endpoint], w)
		cancel(nil)
	}
}

// giveUp remembers for this pull that the endpoint leads elsewhere and fails there, and
// ends the requests that wait for it: all of them together cost one request's time.
func (e *endpoints) giveUp(endpoint string, k lack) {
	e.remember(endpoint, k, 0)
	e.mu.Lock()
	defer e.mu.Unlock()
	for w := range e.waiting[endpoint] {
		w.end(fmt.Errorf("the endpoint's redirect to %s failed for another subject", k.target))
	}
}

// hasManifests reports whether another host, which answered at the address, speaks for the
// registry: requests for manifests are sent there, and it has the subject's.
func (l *lister) hasManifests(ctx context.Context, answered *url.URL) bool {
	at := l.manifestsAt(ctx)
	return at != nil && SameHost(at, answered)
}

// noWord says why an answer of another host counts for nothing.
func (*lister) noWord(a *Response) string {
	return fmt.Sprintf("redirected to %s, from which the subject's manifest does not come: its %d is not the registry's word", a.URL.Host, a.Code)
}

// manifestsAt returns the address at which the subject's own manifest lies, nil where it
// cannot be had. One request a host in each pull tells; a manifest that is not there tells
// nothing of others.
func (l *lister) manifestsAt(ctx context.Context) *url.URL {
	e := l.repo.endpoints
	e.proving.Lock()
	defer e.proving.Unlock()
	if at, known := e.manifests[l.host]; known {
		return at
	}
	var at *url.URL
	code := 0
	q := request{method: http.MethodHead, url: l.repo.URL(l.host, "manifests", l.subject.String()), accept: AcceptAny}
	err := l.repo.perform(ctx, l.host, q, func(resp *http.Response) error {
		a := &Response{URL: resp.Request.URL, Code: resp.StatusCode, Header: resp.Header}
		if code = a.Code; a.isManifest(l.subject) {
			at = a.URL
		}
		return nil
	})
	if err == nil && code == http.StatusNotFound || ctx.Err() != nil {
		return nil
	}
	if e.manifests == nil {
		e.manifests = map[*Host]*url.URL{}
	}
	e.manifests[l.host] = at
	return at
}

// isManifest reports whether the answer to a HEAD says that the manifest is there.
func (a *Response) isManifest(dgst digest.Digest) bool {
	if a.Code != http.StatusOK {
		return false
	}
	if header := a.Header.Get("Docker-Content-Digest"); header != "" {
		return header == dgst.String()
	}
	return images.IsManifestType(a.MediaType()) || images.IsIndexType(a.MediaType())
}
