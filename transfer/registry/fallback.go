package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/log"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// endpoint names the host's endpoint, for what is remembered of it.
func (l *lister) endpoint() string { return l.repo.endpoint(l.host, l.subject.Algorithm()) }

// lack reports whether the fallback tag is to be asked in place of the endpoint, of which
// a and err came. Other failures are the host's: an endpoint that exists is not
// replaced by a tag that may be old.
func (l *lister) lack(ctx context.Context, asked *url.URL, a *Response, err error) (lack, bool) {
	if ctx.Err() != nil {
		return lack{}, false // the pull has ended, whatever the host would have said
	}
	k := lack{code: a.StatusCode(), target: elsewhere(asked, a.address(), err), detail: err.Error()}
	if k.target != "" && a != nil {
		k.detail = fmt.Sprintf("redirected to %s: %s", k.target, k.detail)
	}
	switch {
	case errors.Is(err, ErrTooLarge):
		return lack{}, false
	case a != nil && lacksEndpoint(a.Code):
		k.ownError = a.MediaType() == "application/json"
		if k.target == "" {
			k.detail = "no such endpoint"
		}
		return k, true
	case k.target != "":
		k.failed = true
		l.repo.endpoints.giveUp(l.endpoint(), k)
		if k.code == 0 {
			l.repo.capabilities.remember(l.endpoint(), k, silenceTime)
		}
		return k, true
	case errors.Is(err, errNoListing):
		k.failed = true
		return k, true
	}
	// Another subject's request may have learnt meanwhile that nothing will come.
	if m, ok := l.repo.endpoints.recall(l.endpoint()); ok && m.failed && a == nil {
		k.target, k.failed = m.target, true
		return k, true
	}
	return lack{}, false
}

// lacksEndpoint says which codes mean that a host has no referrers endpoint. The
// specification names 404; the others are seen where a router does not know the
// path.
func lacksEndpoint(code int) bool {
	switch code {
	case http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed,
		http.StatusNotAcceptable, http.StatusNotImplemented:
		return true
	}
	return false
}

// withoutEndpoint lists by the fallback tag, and remembers that there is no endpoint.
func (l *lister) withoutEndpoint(ctx context.Context, request string, k lack) labels.Status {
	l.answer(request, k.code, k.status(), k.detail)
	if k.failed {
		return l.fallback(ctx, k).Worse(labels.Unknown)
	}
	if k.code != http.StatusNotFound {
		l.noteMissing(ctx, k.code)
		l.remember(k)
	}
	return l.fallback(ctx, k)
}

// noteMissing tells the operator once of a host that has no referrers endpoint, and
// says so in another way than the specification's 404.
func (l *lister) noteMissing(ctx context.Context, code int) {
	if l.repo.notices.first(aboutEndpoint, l.host.Host) {
		log.G(ctx).WithField("host", l.host.Host).WithField("code", code).
			Warn("referrers: the host's answer is taken to mean that it has no referrers endpoint; its fallback tags are asked for, and an image without one stays unknown")
	}
}

// fallback reads the listing that registries without the endpoint keep under a
// tag (OCI distribution-spec, "Referrers Tag Schema").
func (l *lister) fallback(ctx context.Context, k lack) labels.Status {
	l.via = outcome.EndpointFallbackTag
	tag := FallbackTag(l.subject)
	request := "tag " + tag
	if !l.host.Capabilities.Has(docker.HostCapabilityResolve) {
		return l.answer(request, 0, "", `not asked: the host may not resolve tags (capability "resolve" in hosts.toml)`)
	}
	a, err := l.repo.Get(ctx, l.host, l.repo.URL(l.host, "manifests", tag), AcceptAny)
	code := a.StatusCode()
	if code == http.StatusNotFound && err == nil {
		return l.nothingUnderTag(ctx, request, a, k, "")
	}
	if err == nil && code == http.StatusOK && artifact.VerifyDigest(a.Body, l.subject) == nil {
		// GitLab reads the tag as a digest.
		l.remember(k)
		return l.nothingUnderTag(ctx, request, a, k, "it holds the subject itself, which is no listing")
	}
	index, err := parseListing(a, err)
	switch {
	case errors.Is(err, ErrTooLarge):
		return l.cut(request, code, err.Error())
	case err != nil:
		return l.answer(request, code, labels.Unknown, err.Error())
	}
	l.remember(k)
	if !l.addEntries(index) {
		return l.cut(request, code, fmt.Sprintf("more than %d entries", MaxEntries))
	}
	return l.listed(request, code, len(index.Entries))
}

// nothingUnderTag is the answer of a tag that holds no listing. It says that there are no
// referrers if the endpoint answered 404, and both answers are the registry's.
func (l *lister) nothingUnderTag(ctx context.Context, request string, a *Response, k lack, detail string) labels.Status {
	own := SameHost(a.URL, l.repo.URL(l.host))
	switch {
	case k.failed:
		return l.answer(request, a.Code, labels.Unknown, "nothing is there, but the endpoint may know of referrers")
	case !k.saysNone():
		return l.answer(request, a.Code, labels.Unknown, fmt.Sprintf("nothing is there, but the endpoint's %d does not say that there are no referrers", k.code))
	case !own && !l.hasManifests(ctx, a.URL):
		return l.answer(request, a.Code, labels.Unknown, l.noWord(a))
	}
	// A 404 may mean a repository or a subject that is not there, and be no word on the
	// endpoint. Where another host gave one, a request is worth it to know.
	if (k.target != "" || !own) && !k.recalled && l.manifestsAt(ctx) != nil {
		l.remember(k)
	}
	return l.answer(request, a.Code, labels.Absent, detail)
}

// remember keeps a lack that no missing repository or subject explains: the code says so,
// or one of them is there. A 400 with an error in JSON is no such code: Quay has it for a
// subject that is not there. What was recalled is not renewed: the endpoint is asked again in time.
func (l *lister) remember(k lack) {
	if k.failed || k.recalled || k.code == http.StatusBadRequest && k.ownError {
		return
	}
	if k.target != "" {
		l.repo.endpoints.remember(l.endpoint(), k, 0)
	}
	l.repo.capabilities.remember(l.endpoint(), k, capabilityTime)
}
