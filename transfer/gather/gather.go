// Package gather brings the referrers of one pull into the content store: it lists
// the referrers of each subject, lets the policy choose, and fetches what it chose.
//
// A [Gather] runs in parallel with the image's own dispatch and never in its path.
// [New] makes one when the image has been resolved; [Gather.Image] adds a subject;
// [Gather.Wait] waits for all of it and returns the outcome; and [Gather.Tie] ties
// the referrers to their subjects, once the rule has let the pull succeed.
//
// A referrer passes through the files in this order: discover.go (listed, chosen by its
// type), take.go (its manifest read and judged), manifest.go and content.go (its
// manifest and what that names fetched), ingest.go (written), collect.go (part of the
// outcome), refresh.go (what is tied but not listed any more), tie.go (tied). What cosign's
// tags (cosign.go) or the image's index ([Gather.Embedded]) name joins at take.go.
package gather

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/tracing"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// Repository is where referrers come from. [registry.Repository] is one.
type Repository interface {
	// ListEach lists the referrers of the subject, and calls found with those of
	// each page as soon as it has been read.
	ListEach(ctx context.Context, subject digest.Digest, found func([]ocispec.Descriptor)) (registry.Listing, error)
	// CosignTag looks for what cosign stored under a tag of its own.
	CosignTag(ctx context.Context, subject digest.Digest, kind registry.CosignKind) (*registry.CosignArtifact, []outcome.Answer)
	registry.Fetcher
}

// Config is what a Gather works with.
type Config struct {
	// Name is the image's reference, for labels and logs.
	Name       string
	Repository Repository
	Store      content.Store
	Labeler    *stored.Labeler // of Store
	Selection  *policy.Selection
	Limits     Limits
	Cosign     CosignTags
	// Dry stores nothing: manifests are read to judge by them, and blobs are
	// held against the limits.
	Dry bool
	// Protect puts content under the lease of the pull, together with all that its labels
	// name; nil where the lease would not reach that.
	Protect func(ctx context.Context, dgst digest.Digest) error
	// NoPrune removes no stored referrer, even if the rule prunes.
	NoPrune bool
	// Progress, if not nil, is told of what comes in. It must be safe for
	// concurrent use.
	Progress transfer.ProgressFunc
	// Examiner, if not nil, examines what was taken. A pull whose rule verifies has one.
	Examiner Examiner
}

// Examiner is told of referrers as they come in. It must be safe for concurrent use.
type Examiner interface {
	// Examine is called with each referrer that is whole in the store, before the gather
	// counts as idle.
	Examine(ctx context.Context, subject, referrer ocispec.Descriptor, m *artifact.Manifest)
	// Meets reports whether what was examined so far is all of the kind that the rule asks
	// for, of a subject of the image and the indexes above it.
	Meets(kind evidence.Kind, subject digest.Digest) bool
	// Notify is called whenever the gather becomes idle.
	Notify()
}

// Gather is the work of one pull. It is safe for concurrent use.
type Gather struct {
	config    Config
	ctx       context.Context // of the pull: it carries namespace and lease
	cancel    context.CancelCauseFunc
	quota     *quota
	listings  *semaphore.Weighted
	downloads *semaphore.Weighted
	source    sourceLabel
	wg        sync.WaitGroup
	span      *tracing.Span
	written   atomic.Int64 // bytes that came into the store
	unasked   atomic.Int64 // manifests of the image over the limit of subjects
	working   atomic.Int64 // goroutines of wg

	mu       sync.Mutex
	closed   bool
	subjects []*subject
	bySubj   map[digest.Digest]*subject
	blobs    map[contentKey]*blob
	children map[childKey]*child
	changes  []Change // of Tie and MarkMissing, which one goroutine calls
	// childBytes are those of children.
	childBytes int64
}

var errClosed = errors.New("the pull ended")

// New starts a gather. The context is that of the pull: it must carry the
// namespace and the lease, and outlast the dispatch (the contexts that handlers
// get end with their level).
func New(ctx context.Context, config Config) *Gather {
	ctx, cancel := context.WithCancelCause(ctx)
	ctx, span := gatherSpan(ctx, config.Name)
	ctx = remotes.WithMediaTypeKeyPrefix(ctx, artifact.MediaTypeArtifactManifest, "manifest")
	n := int64(config.Limits.MaxConcurrentDownloads)
	return &Gather{
		config:    config,
		ctx:       ctx,
		cancel:    cancel,
		quota:     newQuota(config.Limits),
		listings:  semaphore.NewWeighted(n),
		downloads: semaphore.NewWeighted(n),
		source:    newSourceLabel(config.Name),
		span:      span,
		bySubj:    map[digest.Digest]*subject{},
		blobs:     map[contentKey]*blob{},
		children:  map[childKey]*child{},
	}
}

// Image tells of a manifest or index that belongs to the image itself, and of the indexes
// that name it; the root has none. Each is asked about once. Other descriptors that an
// index names are passed over; a root of another type is not asked about and so unknown.
func (g *Gather) Image(desc ocispec.Descriptor, parents ...digest.Digest) {
	if err := g.add(&subject{desc: desc, depth: g.config.Selection.Depth(), parents: parents}, true); err != nil {
		g.unasked.Add(1)
		log.G(g.ctx).WithError(err).WithField("image", g.config.Name).WithField("subject", desc.Digest).
			Warn("referrers: not asked for")
	}
}

// Embedded tells of a manifest of the image's own index that refers to a subject
// which Image was told of: BuildKit's attestations lie there, whatever the
// registry lists. The index, which is verified, says what they refer to.
func (g *Gather) Embedded(subject digest.Digest, desc ocispec.Descriptor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.bySubj[subject]
	if s == nil || g.closed || !g.config.Selection.Wants(artifact.TypeBuildKitAttestation) {
		return
	}
	desc.ArtifactType = artifact.TypeBuildKitAttestation
	c := candidate{Descriptor: desc, via: outcome.Embedded, legacy: artifact.TypeBuildKitAttestation}
	if err := g.quota.accept(subject, outcome.Embedded); err != nil {
		s.skip(c, labels.Truncated, err)
		return
	}
	g.start(func() { g.take(s, c) })
}

// add starts to work on a subject, a part of the image or not, unless that would be one too
// many.
func (g *Gather) add(s *subject, image bool) error {
	root := image && len(s.parents) == 0
	manifest := artifact.IsReferrer(s.desc.MediaType)
	if !manifest && !root {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if known := g.bySubj[s.desc.Digest]; known != nil {
		if image {
			g.join(known, s.parents)
		}
		return nil
	}
	if g.closed {
		return nil
	}
	if err := g.quota.addSubject(image); err != nil {
		return err
	}
	s.status, s.quota, s.discovered = labels.Unknown, g.quota, make(chan struct{})
	s.image.Store(image)
	g.subjects = append(g.subjects, s)
	g.bySubj[s.desc.Digest] = s
	if !manifest { // the registry chooses the type, and must not choose its way around the rules
		s.doubt(fmt.Errorf("not asked: its media type %q is neither a manifest's nor an index's", s.desc.MediaType))
		return nil
	}
	g.start(func() { g.discover(s) })
	return nil
}

// join makes a known subject a part of the image, beneath the parents. It is for those who
// hold g.mu.
func (g *Gather) join(known *subject, parents []digest.Digest) {
	known.parents = append(known.parents, parents...)
	if known.image.Swap(true) || g.closed {
		return
	}
	g.start(func() { // a referrer until now
		<-known.discovered
		g.askCosignTags(&discovered{g: g, s: known})
	})
}

// start does work that Wait waits for.
func (g *Gather) start(work func()) {
	g.working.Add(1)
	g.wg.Go(func() {
		defer func() {
			if g.working.Add(-1) == 0 && g.config.Examiner != nil {
				g.config.Examiner.Notify()
			}
		}()
		work()
	})
}

// Idle reports whether there is nothing to do until Image or Embedded is called again.
func (g *Gather) Idle() bool { return g.working.Load() == 0 }

// Stop ends all work, for the reason that is given to those who ask why a subject is
// unknown. Wait then returns at once.
func (g *Gather) Stop(why error) { g.cancel(why) }

// Wait waits until all referrers are in, at most for the timeout, and returns what
// is known of each subject. No work is left when it returns. Nothing is tied yet:
// that is for Tie, once the outcome may stand.
func (g *Gather) Wait(ctx context.Context) *outcome.Outcome {
	done := make(chan struct{})
	go func() {
		g.wg.Wait()
		close(done)
	}()
	timeout := g.config.Limits.Timeout
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	timedOut := false
	select {
	case <-done:
	case <-timer.C:
		timedOut = true
		g.cancel(fmt.Errorf("not in within %s after the image itself (key timeout)", timeout))
	case <-ctx.Done():
		g.cancel(context.Cause(ctx))
	}
	<-done
	g.close()
	g.cancel(errClosed)
	out := g.collect()
	out.TimedOut = timedOut
	endGather(g.span, out)
	return out
}

// Close ends all work. It may be called at any time, and more than once.
func (g *Gather) Close() {
	g.cancel(errClosed)
	g.close()
	g.wg.Wait()
	g.span.SetStatus(errClosed) // of one that was not waited for; else it has ended
	g.span.End()
}

func (g *Gather) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}
