package transfer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// early counts the questions that it is asked, and answers each with so many entries, or
// with a manifest of so many bytes.
type early struct {
	registry.Fetcher
	entries int
	bytes   int64

	mu    sync.Mutex
	asked map[digest.Digest]int
}

func (e *early) count(subject digest.Digest) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.asked == nil {
		e.asked = map[digest.Digest]int{}
	}
	e.asked[subject]++
}

func (e *early) ListEach(_ context.Context, subject digest.Digest, found func([]ocispec.Descriptor)) (registry.Listing, error) {
	e.count(subject)
	l := registry.Listing{Subject: subject, Status: labels.Present}
	for n := range e.entries {
		l.Referrers = append(l.Referrers, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(subject, n)), Size: 7,
			ArtifactType: "application/" + strings.Repeat("x", 200),
		})
	}
	found(l.Referrers)
	return l, nil
}

func (e *early) CosignTag(_ context.Context, subject digest.Digest, _ registry.CosignKind) (*registry.CosignArtifact, []outcome.Answer) {
	e.count(subject)
	return &registry.CosignArtifact{Descriptor: ocispec.Descriptor{Digest: subject, Size: e.bytes}}, []outcome.Answer{{Status: labels.Present}}
}

func newPrefetch(t *testing.T, r *early) *prefetch {
	t.Helper()
	ready := make(chan struct{})
	close(ready)
	a := &prefetch{
		Repository: r, cancel: func() {}, slots: semaphore.NewWeighted(1), ready: ready,
		planned: make(chan struct{}), listings: map[digest.Digest]*prefetchedListing{}, tags: map[tagKey]*prefetchedTag{},
	}
	t.Cleanup(a.close)
	return a
}

func subjects(n int) []digest.Digest {
	var out []digest.Digest
	for i := range n {
		out = append(out, digest.FromString(fmt.Sprint("subject ", i)))
	}
	return out
}

// A listing that was asked ahead is read once, and not held until the pull ends.
func TestPrefetchForgetsWhatWasRead(t *testing.T) {
	r := &early{entries: 10, bytes: 1 << 10}
	a := newPrefetch(t, r)
	all := subjects(4)
	for _, s := range all {
		a.list(t.Context(), s)
	}
	tag := tagKey{digest.FromString("tagged"), registry.CosignKinds[0]}
	a.tag(t.Context(), tag)
	close(a.planned)
	a.wg.Wait()
	if a.reserved.Load() == 0 {
		t.Error("nothing is counted of what is kept")
	}
	for _, s := range all {
		found := 0
		l, err := a.ListEach(t.Context(), s, func(page []ocispec.Descriptor) { found += len(page) })
		if err != nil || l.Subject != s || len(l.Referrers) != r.entries || found != r.entries {
			t.Errorf("%d referrers of %s, %d found, %v, want %d", len(l.Referrers), l.Subject, found, err, r.entries)
		}
	}
	if got, answers := a.CosignTag(t.Context(), tag.subject, tag.kind); got == nil || len(answers) != 1 {
		t.Errorf("%v, %v, want what lies under the tag", got, answers)
	}
	for s, n := range r.asked {
		if n != 1 {
			t.Errorf("%s was asked about %d times, want once", s, n)
		}
	}
	if len(a.listings) != 0 || len(a.tags) != 0 || a.reserved.Load() != 0 {
		t.Errorf("%d listings and %d tags of %d bytes are still held", len(a.listings), len(a.tags), a.reserved.Load())
	}
	// What is asked about again is the registry's to answer.
	if l, err := a.ListEach(t.Context(), all[0], func([]ocispec.Descriptor) {}); err != nil || len(l.Referrers) != r.entries || r.asked[all[0]] != 2 {
		t.Errorf("%d referrers, %v, asked %d times, want a second answer", len(l.Referrers), err, r.asked[all[0]])
	}
}

// Listings count against what is kept ahead; those that have no room are asked for again.
func TestPrefetchKeepsNoMoreThanItsLimit(t *testing.T) {
	r := &early{entries: registry.MaxEntries}
	a := newPrefetch(t, r)
	all := subjects(maxPrefetched)
	for _, s := range all {
		a.list(t.Context(), s)
	}
	close(a.planned)
	a.wg.Wait()
	if kept := a.reserved.Load(); kept > maxPrefetchedBytes || kept < maxPrefetchedBytes/2 {
		t.Errorf("%d bytes are kept, the limit is %d", kept, maxPrefetchedBytes)
	}
	for _, e := range a.listings {
		if e.dropped && e.listing.Referrers != nil {
			t.Error("a listing that is not kept is held")
		}
	}
	twice := 0
	for _, s := range all {
		l, err := a.ListEach(t.Context(), s, func([]ocispec.Descriptor) {})
		if err != nil || len(l.Referrers) != r.entries {
			t.Errorf("%d referrers, %v, want %d", len(l.Referrers), err, r.entries)
		}
		if r.asked[s] == 2 {
			twice++
		}
	}
	if twice == 0 || twice == len(all) {
		t.Errorf("%d of %d listings were asked for again, want those that had no room", twice, len(all))
	}
	if kept := a.reserved.Load(); kept != 0 {
		t.Errorf("%d bytes count as kept, and all were read", kept)
	}
}
