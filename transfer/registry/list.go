package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

const (
	// MaxPages is how many pages of one listing are read.
	MaxPages = 16
	// MaxEntries is how many entries of one listing are read.
	MaxEntries = artifact.MaxDescriptors
	// MaxListedSize is the largest size of an entry, in bytes, that is taken for a
	// mistake: Harbor before 2.11 lists the size of all that the artifact holds.
	MaxListedSize = 1 << 40
)

// List asks the hosts of the repository what refers to the subject. Hosts that
// may pull are asked in their order, mirrors that declare the capability
// "referrers" before the others, and the registry itself after all that stand in
// for it: an air-gapped node must not leak its questions. The first host that
// lists anything, to its end or to a limit, ends the search. A host that knows of nothing,
// or fails on the way, does not hide those behind it.
//
// The error is nil for every answer of a registry: what failed is in the status
// and the answers. It is errdefs.ErrInvalidArgument for a subject that no URL
// can be built from.
func (r *Repository) List(ctx context.Context, subject digest.Digest) (Listing, error) {
	return r.ListEach(ctx, subject, func([]ocispec.Descriptor) {})
}

// ListEach is List, and calls found with the referrers of each page as soon as it
// has been read. Together, and in their order, they are those of the listing. One
// that a later page contradicts is handed over once more, with that page and
// without what was contradicted.
func (r *Repository) ListEach(ctx context.Context, subject digest.Digest, found func([]ocispec.Descriptor)) (Listing, error) {
	out := Listing{Subject: subject, Began: time.Now()}
	if err := subject.Validate(); err != nil {
		return out, fmt.Errorf("subject %q: %w: %w", subject, err, errdefs.ErrInvalidArgument)
	}
	hosts := r.inOrder(r.HostsWithAny(docker.HostCapabilityPull, docker.HostCapabilityReferrers))
	if len(hosts) == 0 {
		out.Status = labels.Unknown
		out.Answers = []outcome.Answer{{Host: r.Name(), Request: "referrers", Status: labels.Unknown, Detail: "no host may pull (capabilities in hosts.toml)"}}
		return out, nil
	}
	passed := r.askInTurn(hosts, func(r *Repository, h *Host) (answered, end bool) {
		r.warnOfCapability(ctx, h)
		l := &lister{repo: r, host: h, subject: subject, via: outcome.EndpointReferrers, listing: &out, found: found}
		status := l.list(ctx)
		if status == labels.Present || status == labels.Truncated && l.valid > 0 {
			out.Status = status
			return true, true
		}
		out.Status = out.Status.Worse(status)
		return status == labels.Absent || status == labels.Truncated, false
	})
	for _, h := range passed {
		out.Status = out.Status.Worse(labels.Unknown)
		out.Answers = append(out.Answers, outcome.Answer{Host: h.Host, Mirror: r.IsMirror(h), Request: "referrers", Status: labels.Unknown, Detail: h.health.notAsked()})
	}
	if out.Status == "" { // no host could be asked
		out.Status = labels.Unknown
	}
	return out, nil
}

// inOrder sorts mirrors that declare the capability first and the registry itself
// last. Few hosts.toml files name the capability: it is younger than they are; but
// containerd gives it to the registry by default, whatever the file calls that.
func (r *Repository) inOrder(hosts []*Host) []*Host {
	if len(hosts) == 0 {
		return nil
	}
	// The server of hosts.toml comes last there, and may go by another name.
	last := hosts[len(hosts)-1]
	named := slices.ContainsFunc(hosts, func(h *Host) bool { return !r.IsMirror(h) })
	rank := func(h *Host) int {
		switch {
		case !r.IsMirror(h), !named && h == last:
			return 2
		case h.Capabilities.Has(docker.HostCapabilityReferrers):
			return 0
		}
		return 1
	}
	slices.SortStableFunc(hosts, func(a, b *Host) int { return rank(a) - rank(b) })
	return hosts
}

// warnOfCapability tells the operator once of a mirror that is asked although its
// configuration does not name the capability.
func (r *Repository) warnOfCapability(ctx context.Context, h *Host) {
	if !r.IsMirror(h) || h.Capabilities.Has(docker.HostCapabilityReferrers) {
		return
	}
	if r.notices.first(aboutCapability, h.Host) {
		log.G(ctx).WithField("host", h.Host).Warn(`referrers: the mirror is asked although its capabilities in hosts.toml do not name "referrers"; add it, so that the mirror comes before others that do not`)
	}
}

// lister lists the referrers of a subject at one host.
type lister struct {
	repo    *Repository
	host    *Host
	subject digest.Digest
	via     outcome.Endpoint
	listing *Listing // shared by the hosts: what one found, the next need not
	found   func([]ocispec.Descriptor)
	entries int           // that this host listed and no other before it
	valid   int           // that this host listed and that can be referrers
	refused labels.Status // the worst that became of the others
}

func (l *lister) answer(request string, code int, status labels.Status, detail string) labels.Status {
	l.listing.Answers = append(l.listing.Answers, outcome.Answer{Host: l.host.Host, Mirror: l.repo.IsMirror(l.host), Via: l.via, Request: request, Code: code, Status: status, Detail: outcome.Shorten(detail)})
	return status
}

// cut is the answer of a listing that a limit cut. It is truncated only where it listed
// something: whoever lists nothing must not pass for one that lists too much.
func (l *lister) cut(request string, code int, detail string) labels.Status {
	status := labels.Truncated
	if l.valid == 0 && l.refused != labels.Truncated {
		status = labels.Unknown
	}
	l.answer(request, code, status, detail)
	l.listing.Answers[len(l.listing.Answers)-1].Limit = outcome.LimitListing
	return status
}

func (l *lister) list(ctx context.Context) labels.Status {
	if told, k, ok := l.repo.recall(ctx, l.host, l.endpoint()); ok {
		l.answer("referrers", 0, k.status(), told)
		return l.fallback(ctx, k).Worse(k.status())
	}
	next := l.repo.URL(l.host, "referrers", l.subject.String())
	visited := map[string]bool{}
	listed := 0
	for page := 1; ; page++ {
		request := "referrers"
		if page > 1 {
			request = fmt.Sprintf("referrers, page %d", page)
		}
		visited[next.String()] = true
		a, index, err := l.readPage(ctx, next)
		code := a.StatusCode()
		if page == 1 && err != nil {
			if k, ok := l.lack(ctx, next, a, err); ok {
				return l.withoutEndpoint(ctx, request, k)
			}
		}
		switch {
		case errors.Is(err, ErrTooLarge):
			return l.cut(request, code, err.Error())
		case err != nil:
			return l.answer(request, code, labels.Unknown, err.Error())
		}
		listed += len(index.Entries)
		if !l.addEntries(index) {
			return l.cut(request, code, fmt.Sprintf("more than %d entries", MaxEntries))
		}
		link, err := l.nextPage(a, next)
		switch {
		case err != nil:
			return l.answer(request, code, labels.Unknown, err.Error())
		case link == nil:
			return l.listed(request, code, listed)
		case visited[link.String()]:
			return l.cut(request, code, "its pages lead in a circle")
		case page == MaxPages:
			return l.cut(request, code, fmt.Sprintf("more than %d pages", MaxPages))
		}
		next = link
	}
}

// readPage reads one page of the listing.
func (l *lister) readPage(ctx context.Context, u *url.URL) (*Response, *artifact.Index, error) {
	ctx, done := l.repo.endpoints.await(ctx, l.endpoint())
	defer done()
	a, err := l.repo.ask(ctx, l.host, request{method: http.MethodGet, url: u, accept: ocispec.MediaTypeImageIndex, impatient: true})
	index, err := parseListing(a, err)
	return a, index, err
}

// nextPage returns the address of the page after the one that came from the address.
func (l *lister) nextPage(a *Response, asked *url.URL) (*url.URL, error) {
	link, err := nextPage(a.Header, a.URL)
	if link == nil {
		return nil, err
	}
	if !SameHost(a.URL, asked) {
		// Its pages would be asked for with the registry's credentials.
		return nil, fmt.Errorf("the listing was redirected to %s, whose further pages are not followed: %w", a.URL.Host, errdefs.ErrPermissionDenied)
	}
	return l.keepNamespace(link), err
}

// listed is the answer of a listing that was read to its end.
func (l *lister) listed(request string, code, listed int) labels.Status {
	switch {
	case listed == 0:
		return l.answer(request, code, labels.Absent, "")
	case l.valid == 0:
		return l.noneCanBe(request, code, listed)
	}
	return l.answer(request, code, labels.Present, fmt.Sprintf("%d listed", listed))
}

// noneCanBe is the answer of a listing whose entries were all refused: truncated where
// only limits did so.
func (l *lister) noneCanBe(request string, code, listed int) labels.Status {
	if l.refused == labels.Truncated {
		return l.cut(request, code, fmt.Sprintf("%d listed, of which none is within the limits", listed))
	}
	return l.answer(request, code, labels.Unknown, fmt.Sprintf("%d listed, of which none can be a referrer", listed))
}

// keepNamespace tells a mirror again for which registry it stands: many leave
// the parameter out of their links.
func (l *lister) keepNamespace(link *url.URL) *url.URL {
	ns := l.repo.URL(l.host).Query().Get("ns")
	q := link.Query()
	if ns == "" || q.Has("ns") {
		return link
	}
	q.Set("ns", ns)
	link.RawQuery = q.Encode()
	return link
}

// addEntries adds the entries to the listing, each digest once. It is false where
// there are more than the limit.
func (l *lister) addEntries(page *artifact.Index) bool {
	before := len(l.listing.Referrers)
	var again []ocispec.Descriptor
	defer func() { l.found(slices.Concat(again, l.listing.Referrers[before:])) }()
	known := map[digest.Digest]int{}
	for i, d := range l.listing.Referrers {
		known[d.Digest] = i
	}
	for _, entry := range page.Entries {
		d := entry.Descriptor
		if i, ok := known[d.Digest]; ok && entry.Err == nil {
			l.valid++
			if first := &l.listing.Referrers[i]; contradict(*first, d) {
				first.ArtifactType, first.Annotations = "", nil
				if i < before {
					again = append(again, *first)
				}
			}
			continue
		}
		if l.entries++; l.entries > MaxEntries {
			return false
		}
		err := artifact.Check(d, MaxListedSize)
		switch {
		case entry.Err != nil:
			l.reject(d, labels.Unknown, fmt.Sprintf("its entry cannot be read: %v", entry.Err))
		case errdefs.IsResourceExhausted(err):
			l.reject(d, labels.Truncated, err.Error())
		case err != nil:
			l.reject(d, labels.Unknown, err.Error())
		case !artifact.IsReferrer(d.MediaType):
			l.reject(d, labels.Unknown, fmt.Sprintf("media type %q is neither a manifest's nor an index's", d.MediaType))
		case d.Digest == l.subject:
			l.reject(d, "", "it is the subject itself")
		default:
			l.valid++
			known[d.Digest] = len(l.listing.Referrers)
			// The size is a hint: a manifest is fetched up to the limit of manifests
			// and held against its digest, whatever the listing says.
			d.Size = min(d.Size, artifact.MaxManifestSize)
			l.listing.Referrers = append(l.listing.Referrers, d)
		}
	}
	return !page.More
}

// contradict reports whether two entries of one digest say of it what cannot both be
// so. Neither is believed then, lest a wrong one that comes first, or that a mirror has,
// hides what is wanted: an entry without a type says nothing, and the manifest decides.
// One spelling of a type against another counts as well; it costs no more than that.
func contradict(first, other ocispec.Descriptor) bool {
	return first.ArtifactType != "" &&
		(first.ArtifactType != other.ArtifactType || !maps.Equal(first.Annotations, other.Annotations))
}

func (l *lister) reject(d ocispec.Descriptor, status labels.Status, reason string) {
	l.refused = l.refused.Worse(status)
	d.MediaType, d.ArtifactType, d.Digest = outcome.Shorten(d.MediaType), outcome.Shorten(d.ArtifactType), digest.Digest(outcome.Shorten(d.Digest.String()))
	l.listing.Rejected = append(l.listing.Rejected, Rejection{Descriptor: d, Status: status, Reason: outcome.Shorten(reason)})
}
