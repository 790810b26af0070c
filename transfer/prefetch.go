package transfer

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// maxPrefetched is how many questions are asked ahead; the rest waits for its turn.
const maxPrefetched = 256

// maxAskedAtOnce is how many of them wait for their answer at a time. Their answers are
// small, so that it is round trips that count: a hundred referrers, each asked about, cost one
// more. Registries that speak HTTP/2 answer all of them on one connection.
const maxAskedAtOnce = 128

// maxConnections is how many wait where each has a connection of its own: a registry should
// not meet a hundred of one node, each with its handshake.
const maxConnections = 32

// maxPrefetchedBytes is how many bytes of listings, and of manifests that lie under tags, are kept
// ahead until the gather has read them; what is more is asked for again.
const maxPrefetchedBytes = 16 << 20

// prefetch asks, while an image that is there is resolved anew, what its last pull asked
// about its referrers, and has the answers when the gather asks. Where the image
// and its referrers have not changed these are its questions, all of them, which
// otherwise come one after the other: subject, referrer, referrer's referrer.
// Where the image has changed they were in vain. The answers are the registry's,
// of this pull.
type prefetch struct {
	gather.Repository
	cancel   context.CancelFunc
	slots    *semaphore.Weighted
	wg       sync.WaitGroup
	reserved atomic.Int64 // bytes of what has not been read

	ready chan struct{} // closed when requests would not be refused for want of a token
	start func()        // closes it, once

	planned chan struct{} // closed when the maps are whole; they only lose entries then

	mu       sync.Mutex // of the maps, once they are whole
	listings map[digest.Digest]*prefetchedListing
	tags     map[tagKey]*prefetchedTag
}

type prefetchedListing struct {
	done    chan struct{}
	listing registry.Listing
	err     error
	bytes   int64
	dropped bool // there was no room for it
}

type tagKey struct {
	subject digest.Digest
	kind    registry.CosignKind
}

type prefetchedTag struct {
	done    chan struct{}
	found   *registry.CosignArtifact
	answers []outcome.Answer
	bytes   int64
}

// prefetchAnswers is nil where there is nothing to ask, or it cannot be known.
func (p *pull) prefetchAnswers(ctx context.Context, image images.Image) *prefetch {
	selection := p.expected()
	if selection.Empty() {
		return nil
	}
	reg, err := p.repository()
	if err != nil {
		return nil
	}
	reg.SetKnown(p.t.knownManifest)
	known, multiplexed := p.opened.Known()
	atOnce := int64(maxConnections)
	if multiplexed {
		atOnce = maxAskedAtOnce
	}
	a := &prefetch{
		Repository: reg,
		slots:      semaphore.NewWeighted(atOnce),
		ready:      make(chan struct{}),
		planned:    make(chan struct{}), listings: map[digest.Digest]*prefetchedListing{}, tags: map[tagKey]*prefetchedTag{},
	}
	a.start = sync.OnceFunc(func() { close(a.ready) })
	if known {
		a.start()
	}
	ctx, a.cancel = context.WithCancel(ctx)
	a.wg.Go(func() {
		defer close(a.planned)
		if err := a.plan(ctx, p.t, image, selection); err != nil {
			log.G(ctx).WithError(err).WithField("image", image.Name).Debug("referrers: nothing is prefetched")
		}
	})
	return a
}

// knownManifest returns a manifest that is stored, nil where there is none. Who asks verifies
// it.
func (t *Transferrer) knownManifest(ctx context.Context, dgst digest.Digest) []byte {
	info, err := t.config.Store.Info(ctx, dgst)
	if err != nil || info.Size > artifact.MaxManifestSize {
		return nil
	}
	data, err := stored.ReadManifest(ctx, t.config.Store, ocispec.Descriptor{Digest: dgst, Size: info.Size})
	if err != nil {
		return nil
	}
	return data
}

// plan asks what the last pull asked: it marked each subject.
func (a *prefetch) plan(ctx context.Context, t *Transferrer, image images.Image, selection *policy.Selection) error {
	read, err := stored.Read(ctx, t.config.Store, image)
	if err != nil {
		return err
	}
	for _, s := range read.Subjects {
		if s.Checked.IsZero() {
			continue
		}
		a.list(ctx, s.Digest)
		var of []stored.Referrer
		for _, r := range read.Referrers {
			if r.Subject == s.Digest && r.Unlisted.IsZero() {
				of = append(of, r)
			}
		}
		a.referrers(ctx, t, of, selection, selection.Depth()-1)
		for _, kind := range registry.CosignKinds {
			if t.asksTag(ctx, s.Digest, of, kind, selection) {
				a.tag(ctx, tagKey{s.Digest, kind})
			}
		}
	}
	return nil
}

// referrers asks for the referrers of referrers.
func (a *prefetch) referrers(ctx context.Context, t *Transferrer, of []stored.Referrer, selection *policy.Selection, depth int) {
	if depth < 1 {
		return
	}
	for _, r := range of {
		if !selection.Follows(r.Artifact()) {
			continue
		}
		if info, err := t.config.Store.Info(ctx, r.Digest); err == nil && info.Labels[labels.CheckedKey] != "" {
			a.list(ctx, r.Digest)
			a.referrers(ctx, t, r.Referrers, selection, depth-1)
		}
	}
}

// asksTag reports whether the gather will ask for the tag of cosign's, if the listing is
// as it was.
func (t *Transferrer) asksTag(ctx context.Context, subject digest.Digest, of []stored.Referrer, kind registry.CosignKind, selection *policy.Selection) bool {
	if t.config.Cosign == gather.CosignNever || subject.Algorithm() != digest.SHA256 || !selection.Wants(kind.ArtifactType) {
		return false
	}
	var listed []artifact.Referrer
	for _, r := range of {
		if info, err := t.config.Store.Info(ctx, r.Digest); err == nil && info.Labels[labels.ArtifactTypeKey] == "" {
			listed = append(listed, r.Artifact())
		}
	}
	return !t.config.Cosign.Spares(kind, listed, selection)
}

// ask makes the request when its time has come.
func (a *prefetch) ask(ctx context.Context, done chan struct{}, request func()) {
	a.wg.Go(func() {
		defer close(done)
		select {
		case <-a.ready:
		case <-ctx.Done():
			return
		}
		if a.slots.Acquire(ctx, 1) != nil {
			return
		}
		defer a.slots.Release(1)
		request()
	})
}

func (a *prefetch) list(ctx context.Context, subject digest.Digest) {
	if a.listings[subject] != nil || len(a.listings)+len(a.tags) == maxPrefetched {
		return
	}
	e := &prefetchedListing{done: make(chan struct{}), err: context.Canceled}
	a.listings[subject] = e
	a.ask(ctx, e.done, func() {
		listing, err := a.Repository.ListEach(ctx, subject, func([]ocispec.Descriptor) {})
		if e.bytes = weight(listing); a.reserve(e.bytes) {
			e.listing, e.err = listing, err
		} else {
			e.dropped = true
		}
	})
}

// weight is about how many bytes a listing holds.
func weight(l registry.Listing) int64 {
	const each = 512 // of an entry or an answer, beside its text
	n := 0
	text := func(d ocispec.Descriptor) {
		n += each + len(d.MediaType) + len(d.ArtifactType) + len(d.Digest)
		for k, v := range d.Annotations {
			n += len(k) + len(v)
		}
	}
	for _, d := range l.Referrers {
		text(d)
	}
	for _, r := range l.Rejected {
		text(r.Descriptor)
		n += len(r.Reason)
	}
	for _, a := range l.Answers {
		n += each + len(a.Host) + len(a.Request) + len(a.Detail)
	}
	return int64(n)
}

// reserve reports whether there is room for that much more.
func (a *prefetch) reserve(bytes int64) bool {
	if a.reserved.Add(bytes) <= maxPrefetchedBytes {
		return true
	}
	a.reserved.Add(-bytes)
	return false
}

func (a *prefetch) tag(ctx context.Context, key tagKey) {
	if len(a.listings)+len(a.tags) == maxPrefetched {
		return
	}
	e := &prefetchedTag{done: make(chan struct{})}
	a.tags[key] = e
	a.ask(ctx, e.done, func() {
		found, answers := a.Repository.CosignTag(ctx, key.subject, key.kind)
		if found != nil {
			e.bytes = found.Size
		}
		if a.reserve(e.bytes) {
			e.found, e.answers = found, answers
		}
	})
}

// ListEach implements gather.Repository.
func (a *prefetch) ListEach(ctx context.Context, subject digest.Digest, found func([]ocispec.Descriptor)) (registry.Listing, error) {
	if err := wait(ctx, a.planned); err != nil {
		return registry.Listing{Subject: subject, Status: labels.Unknown}, err
	}
	e := take(a, a.listings, subject)
	if e == nil {
		return a.Repository.ListEach(ctx, subject, found)
	}
	if err := wait(ctx, e.done); err != nil {
		return registry.Listing{Subject: subject, Status: labels.Unknown}, err
	}
	if e.dropped {
		return a.Repository.ListEach(ctx, subject, found)
	}
	a.reserved.Add(-e.bytes)
	found(e.listing.Referrers)
	return e.listing, e.err
}

// CosignTag implements gather.Repository.
func (a *prefetch) CosignTag(ctx context.Context, subject digest.Digest, kind registry.CosignKind) (*registry.CosignArtifact, []outcome.Answer) {
	if wait(ctx, a.planned) == nil {
		if e := take(a, a.tags, tagKey{subject, kind}); e != nil && wait(ctx, e.done) == nil && len(e.answers) > 0 {
			a.reserved.Add(-e.bytes)
			return e.found, e.answers
		}
	}
	return a.Repository.CosignTag(ctx, subject, kind)
}

// take returns an answer and forgets it: it is read once, and the pull may go on for long.
func take[K comparable, V any](a *prefetch, answers map[K]*V, key K) *V {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := answers[key]
	delete(answers, key)
	return e
}

func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *prefetch) close() {
	a.cancel()
	a.wg.Wait()
}
