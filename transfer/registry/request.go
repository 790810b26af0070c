package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/net/http2"
)

// URL returns the address of an endpoint of the repository at the host
// ("referrers", "sha256:…"), with the "ns" parameter where the host is a mirror
// (containerd's registry host namespace).
func (r *Repository) URL(h *Host, elem ...string) *url.URL {
	u := &url.URL{
		Scheme: h.Scheme,
		Host:   h.Host,
		Path:   path.Join(append([]string{"/", h.Path, r.name}, elem...)...),
	}
	if r.IsMirror(h) {
		u.RawQuery = url.Values{"ns": {r.spec.Hostname()}}.Encode()
	}
	return u
}

// request is what is asked of a host. All of them can be made again without harm.
type request struct {
	method      string
	url         *url.URL
	accept      string
	contentType string // of the body
	body        []byte // nil sends none
	// impatient takes the first answer of another host, to which a redirect led: a site
	// that has nothing to do with the registry may ask to come back later for ever.
	impatient bool
	unless    string // the ETag of what is not to be sent again; "" sends no condition
}

// get reads an address, see perform.
func (r *Repository) get(ctx context.Context, h *Host, u *url.URL, accept string, use func(*http.Response) error) error {
	return r.perform(ctx, h, request{method: http.MethodGet, url: u, accept: accept}, use)
}

// perform makes the request and hands its answer, of whatever status, to use. It does
// so again where it failed temporarily: on broken connections, while use reads as
// well, and on 408, 429 and 5xx that a later attempt may not give. A host that
// does not answer in time is not asked again: the transfer waits for it.
func (r *Repository) perform(ctx context.Context, h *Host, q request, use func(*http.Response) error) error {
	for attempt := 1; ; attempt++ {
		if err := h.Down(); err != nil {
			return err
		}
		asked := r.askedAt(attempt)
		resp, err := r.authorized(ctx, h, q)
		last := attempt >= r.limits.Attempts || ctx.Err() != nil
		foreign := q.foreign(resp, err)
		if !foreign {
			h.health.note(asked, resp, err, last)
			recordWait(ctx, h.Host, resp)
		}
		wait := r.wait(attempt, resp)
		switch {
		case err == nil && (last || !passing(resp.StatusCode) || foreign):
			err = use(resp)
			if cerr := resp.Body.Close(); err == nil && cerr != nil {
				err = cerr
			}
			if err == nil || last || !broken(err) {
				return err
			}
		case err == nil:
			discard(resp.Body)
			err = fmt.Errorf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
		case last || !broken(err):
			return err
		}
		log.G(ctx).WithError(err).WithField("url", redact(q.url)).WithField("attempt", attempt).
			WithField("wait", wait).Debug("referrers: request failed for now, trying again")
		if err := Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// askedAt returns when it was decided to make the attempt, which begins now.
func (r *Repository) askedAt(attempt int) time.Time {
	if attempt == 1 && !r.asked.IsZero() {
		return r.asked
	}
	return time.Now()
}

// Sleep waits, or until the context ends, whose cause is the error.
func Sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// authorized makes one attempt, and answers a challenge once: a 401 may be the
// first of a pull, or come from a token that ran out half way.
func (r *Repository) authorized(ctx context.Context, h *Host, q request) (*http.Response, error) {
	ctx, err := docker.ContextWithRepositoryScope(asOurs(ctx, true), r.spec, r.push)
	if err != nil {
		return nil, err
	}
	var answers []*http.Response
	for {
		resp, err := r.do(ctx, h, q)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized || h.Authorizer == nil || len(answers) > 0 || !SameHost(resp.Request.URL, q.url) {
			return resp, nil // or of a host that a redirect led to, which gets no credentials
		}
		if err := checkChallenge(resp); err != nil {
			discard(resp.Body)
			return nil, fmt.Errorf("authorize at %s: %w", h.Host, err)
		}
		answers = append(answers, resp)
		if err := h.Authorizer.AddResponses(ctx, answers); err != nil {
			if errdefs.IsNotImplemented(err) || errors.Is(err, docker.ErrInvalidAuthorization) {
				return resp, nil
			}
			discard(resp.Body)
			return nil, fmt.Errorf("authorize at %s: %w", h.Host, err)
		}
		discard(resp.Body)
	}
}

// newRequest returns the request with the headers of the operator and the client.
func (r *Repository) newRequest(h *Host, q request) (*http.Request, error) {
	req, err := http.NewRequest(q.method, q.url.String(), nil)
	if err != nil {
		return nil, err
	}
	if q.body != nil {
		req.ContentLength = int64(len(q.body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(q.body)), nil }
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	req.Header = r.header.Clone()
	for key, values := range h.Header {
		req.Header[key] = append(req.Header[key], values...)
	}
	if q.accept != "" {
		req.Header.Set("Accept", q.accept)
	}
	if q.unless != "" {
		req.Header.Set("If-None-Match", q.unless)
	}
	if q.contentType != "" {
		req.Header.Set("Content-Type", q.contentType)
	}
	// Decompressing untrusted data is a way to be robbed of
	// memory, and content that is addressed by digest gains nothing from it.
	req.Header.Set("Accept-Encoding", "identity")
	return req, nil
}

// do makes one attempt with the token that is there. A host that fails to answer is marked;
// one that redirects to storage that fails is not, and neither is one whose token service
// fails.
func (r *Repository) do(ctx context.Context, h *Host, q request) (*http.Response, error) {
	req, err := r.newRequest(h, q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	limit := time.AfterFunc(r.limits.Request, func() { cancel(errTimeout(r.limits.Request, "headers")) })
	answered := h.await(cancel)
	if err := h.authorize(ctx, req); err != nil {
		limit.Stop()
		answered()
		cancel(nil)
		return nil, fmt.Errorf("authorize at %s: %w", h.Host, err)
	}
	resp, asked, err := r.send(ctx, h, q, req)
	limit.Stop()
	answered()
	timeout := context.Cause(ctx)
	if err == nil && timeout == nil {
		resp.Body = &body{ReadCloser: resp.Body, cancel: cancel, ctx: ctx}
		return resp, nil
	}
	if err == nil {
		resp.Body.Close()
	}
	err = plainError(err)
	if timeout != nil {
		err = timeout
	}
	if asked.Host == h.Host {
		h.markDown(err)
	}
	cancel(nil)
	return nil, failedAt(q, asked, err)
}

// send sends the request, and within its time a few times where a connection is refused. It
// returns which address was asked last: redirects may have led elsewhere.
func (r *Repository) send(ctx context.Context, h *Host, q request, req *http.Request) (resp *http.Response, asked *url.URL, err error) {
	client := http.Client{}
	if h.Client != nil {
		client.Transport, client.Jar = h.Client.Transport, h.Client.Jar
	}
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		asked = req.URL
		if q.body != nil && (req.Method != q.method || req.URL.Host != via[0].URL.Host) {
			return http.ErrUseLastResponse // the body would be lost, or another host's
		}
		return r.checkRedirect(req, via)
	}
	for dial := 1; ; dial++ {
		asked = q.url
		resp, err = client.Do(req.WithContext(ctx))
		r.observe(q.url, resp)
		if dial >= min(dials, r.limits.Attempts) || !refused(err) || Sleep(ctx, r.wait(dial, nil)) != nil {
			return resp, asked, err
		}
		if req.GetBody != nil {
			req.Body, _ = req.GetBody() // of bytes in memory: cannot fail
		}
	}
}

// plainError takes the address out of a client's error, which names it with all its
// secrets.
func plainError(err error) error {
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if err != nil && strings.Contains(err.Error(), "Location header") { // quoted whole
		err = fmt.Errorf("its redirect cannot be read: %w", errdefs.ErrInvalidArgument)
	}
	return err
}

// authorize puts the host's authorization onto the request.
func (h *Host) authorize(ctx context.Context, req *http.Request) error {
	if h.Authorizer == nil {
		return nil
	}
	return h.Authorizer.Authorize(ctx, req)
}

// passing says which codes a later attempt may not give.
func passing(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// broken reports whether a connection broke, or a stream of HTTP/2, which a later attempt's may
// not.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.As(err, new(http2.StreamError))
}

// wait returns how long to wait after the given attempt: what Retry-After asks
// for, within the limit, or the doubled back-off. A random part is added or taken
// off, so that a cluster's nodes do not come back together.
func (r *Repository) wait(attempt int, resp *http.Response) time.Duration {
	if resp != nil {
		after := retryAfter(resp.Header.Get("Retry-After"), time.Now())
		if after >= r.limits.RetryAfter {
			return r.limits.RetryAfter - rand.N(r.limits.RetryAfter/10+1)
		}
		if after > 0 {
			return min(after+rand.N(after/10+1), r.limits.RetryAfter)
		}
	}
	backoff := r.limits.Backoff << min(attempt-1, 10)
	return backoff - rand.N(backoff/2+1)
}

// retryAfter reads the header of RFC 9110, section 10.2.3: seconds, or a date.
// Anything else is zero.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value != "" && strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return math.MaxInt64 // more than can be counted
		}
		return time.Duration(seconds) * time.Second
	}
	if t, err := http.ParseTime(value); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// redact returns the address without what may be secret in it: signed storage
// URLs carry their signature in the query.
func redact(u *url.URL) string {
	c := *u
	if ns := c.Query().Get("ns"); ns != "" {
		c.RawQuery = url.Values{"ns": {ns}}.Encode()
	} else {
		c.RawQuery = ""
	}
	c.Fragment, c.RawFragment = "", ""
	return c.Redacted()
}
