package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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
	if r.isMirror(h) {
		u.RawQuery = url.Values{"ns": {r.spec.Hostname()}}.Encode()
	}
	return u
}

// get makes the request, and makes it again where it failed in passing: on
// broken connections, and on 408, 429 and 5xx that a later attempt may not give.
// A host that does not answer in time is not asked again: the pull waits for it.
// The answer may have any status. Its body must be closed, which also ends ctx's
// child that the request runs in.
func (r *Repository) get(ctx context.Context, h *Host, u *url.URL, accept string) (*http.Response, error) {
	if err := h.Down(); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		resp, err := r.authorized(ctx, h, u, accept)
		if err != nil {
			h.markDown(err)
		}
		if attempt >= r.limits.Attempts || !passing(resp, err) || h.Down() != nil || ctx.Err() != nil {
			return resp, err
		}
		wait := r.wait(attempt, resp)
		entry := log.G(ctx).WithField("url", redact(u)).WithField("attempt", attempt).WithField("wait", wait)
		if err != nil {
			entry.WithError(err).Debug("referrers: request failed, trying again")
		} else {
			entry.WithField("status", resp.StatusCode).Debug("referrers: request refused for now, trying again")
			discard(resp.Body)
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, wait time.Duration) error {
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
func (r *Repository) authorized(ctx context.Context, h *Host, u *url.URL, accept string) (*http.Response, error) {
	ctx, err := docker.ContextWithRepositoryScope(ctx, r.spec, false)
	if err != nil {
		return nil, err
	}
	var answers []*http.Response
	for {
		resp, err := r.do(ctx, h, u, accept)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized || h.Authorizer == nil || len(answers) > 0 {
			return resp, nil
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

func (r *Repository) do(ctx context.Context, h *Host, u *url.URL, accept string) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	headers := time.AfterFunc(r.limits.Request, func() { cancel(errTimeout(r.limits.Request, "headers")) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	req.Header = r.header.Clone()
	for key, values := range h.Header {
		req.Header[key] = append(req.Header[key], values...)
	}
	req.Header.Set("Accept", accept)
	// Decompressing what a stranger compressed is a way to be robbed of
	// memory, and content that is addressed by digest gains nothing from it.
	req.Header.Set("Accept-Encoding", "identity")
	if h.Authorizer != nil {
		if err := h.Authorizer.Authorize(ctx, req); err != nil {
			cancel(nil)
			return nil, fmt.Errorf("authorize at %s: %w", h.Host, err)
		}
	}
	client := http.Client{Transport: h.Client.Transport, Jar: h.Client.Jar, CheckRedirect: r.checkRedirect}
	resp, err := client.Do(req)
	headers.Stop()
	if cause := context.Cause(ctx); cause != nil && err == nil {
		resp.Body.Close()
		err = cause
	} else if errors.As(cause, new(timeoutError)) {
		err = fmt.Errorf("GET %s: %w", redact(u), cause)
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &body{ReadCloser: resp.Body, cancel: cancel, ctx: ctx}
	return resp, nil
}

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

// linkLocal covers the metadata services of clouds, which no registry redirects
// to in good faith.
func linkLocal(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLinkLocalUnicast()
}

// passing says whether a later attempt may succeed where this one failed.
func passing(resp *http.Response, err error) bool {
	if err != nil {
		return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
			errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// wait returns how long to wait after the given attempt: what Retry-After asks
// for, or the doubled back-off, less a random part of up to one half so that a
// cluster's nodes do not come back together.
func (r *Repository) wait(attempt int, resp *http.Response) time.Duration {
	if resp != nil {
		if after := retryAfter(resp.Header.Get("Retry-After"), time.Now()); after > 0 {
			after = min(after, r.limits.RetryAfter)
			return after + rand.N(after/10+1)
		}
	}
	backoff := r.limits.Backoff << (attempt - 1)
	return backoff - rand.N(backoff/2+1)
}

// retryAfter reads the header of RFC 9110, section 10.2.3: seconds, or a date.
// Anything else is zero.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
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
	if q := c.Query(); len(q) > 0 {
		ns := q.Get("ns")
		c.RawQuery = ""
		if ns != "" {
			c.RawQuery = url.Values{"ns": {ns}}.Encode()
		}
	}
	return c.Redacted()
}
