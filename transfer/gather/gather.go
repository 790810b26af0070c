// Package gather brings the referrers of one pull into the content store: it lists
// the referrers of each subject, lets the policy choose, and fetches what it chose.
//
// A [Gather] runs in parallel with the image's own dispatch and never in its path.
// [New] makes one when the image has been resolved; [Gather.Image] adds a subject;
// [Gather.Wait] waits for all of it and returns the [Outcome]; and [Gather.Tie] ties
// the referrers to their subjects, once [Outcome.Enforce] has let the pull succeed.
package gather

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/tracing"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/remote"
)

// Registry is where referrers come from. discovery.Registry is one.
type Registry interface {
	// ListEach lists the referrers of the subject, and calls found with those of
	// each page as soon as it has been read.
	ListEach(ctx context.Context, subject digest.Digest, found func([]ocispec.Descriptor)) (discovery.Listing, error)
	// CosignTag looks for what cosign stored under a tag of its own.
	CosignTag(ctx context.Context, subject digest.Digest, kind discovery.CosignKind) (*discovery.CosignArtifact, []discovery.Answer)
	remote.Fetcher
}

// CosignTags says when cosign's own tags are asked for.
type CosignTags string

// The ways to look for cosign's tags.
const (
	// CosignAuto asks for a tag when the listing holds nothing of its set.
	CosignAuto CosignTags = "auto"
	// CosignAlways asks for it in any case.
	CosignAlways CosignTags = "always"
	// CosignNever does not ask.
	CosignNever CosignTags = "never"
)

// Limits bound what one pull may take. All must be positive.
type Limits struct {
	// Timeout is how long Wait waits once the image itself is complete.
	Timeout time.Duration
	// MaxReferrers is how many are taken for one subject.
	MaxReferrers int
	// MaxBlobSize is how large one blob may be, in bytes.
	MaxBlobSize int64
	// MaxTotalSize is how much the referrers of one pull may hold, in bytes,
	// manifests and blobs.
	MaxTotalSize int64
	// MaxConcurrentDownloads is how many manifests and blobs come in at a
	// time; as many listings again.
	MaxConcurrentDownloads int
}

// DefaultLimits are those of the configuration's defaults.
var DefaultLimits = Limits{
	Timeout:                30 * time.Second,
	MaxReferrers:           100,
	MaxBlobSize:            32 << 20,
	MaxTotalSize:           128 << 20,
	MaxConcurrentDownloads: 3,
}

// maxSubjects is how many manifests of the image one pull asks about, how many of their
// referrers, and how many referrers it takes. Referrers of referrers multiply: a hundred
// each make ten thousand at depth 2. Those of the image have a limit of their own, so that
// no registry can use it up before all platforms have been asked about.
const maxSubjects = 1000

// MaxChildren is how many layers an artifact may have, or manifests an index
// that is a referrer.
const MaxChildren = 32

// Config is what a Gather works with.
type Config struct {
	// Name is the image's reference, for labels and logs.
	Name      string
	Registry  Registry
	Store     content.Store
	Selection *policy.Selection
	Limits    Limits
	Cosign    CosignTags
	// Dry stores nothing: manifests are read to judge by them, and blobs are
	// held against the limits.
	Dry bool
	// Keep removes no stored referrer, even if the rule prunes.
	Keep bool
	// Progress, if not nil, is told of what comes in. It must be safe for
	// concurrent use.
	Progress transfer.ProgressFunc
}

// Gather is the work of one pull. It is safe for concurrent use.
type Gather struct {
	Config
	ctx       context.Context // of the pull: it carries namespace and lease
	cancel    context.CancelCauseFunc
	listings  *semaphore.Weighted
	downloads *semaphore.Weighted
	source    sourceLabel
	wg        sync.WaitGroup
	span      *tracing.Span
	written   atomic.Int64 // bytes that came into the store
	unasked   atomic.Int64 // manifests of the image over the limit of subjects
	held      atomic.Int64 // bytes of manifests that wait for their turn
	budget    budget       // of what is remembered of listings

	mu       sync.Mutex
	closed   bool
	subjects []*subject
	images   int // of subjects, those that were added as the image's own
	bySubj   map[digest.Digest]*subject
	blobs    map[contentKey]*blob
	sized    map[contentKey]bool // what total counts
	total    int64               // bytes of manifests and blobs
	takes    int                 // referrers that are being taken, or were
	asks     int                 // those whose manifest must decide
	wasted   int64               // bytes of manifests that came to nothing
	failed   int                 // requests for manifests that failed
}

var errClosed = errors.New("the pull ended")

// New starts a gather. The context is that of the pull: it must carry the
// namespace and the lease, and outlast the dispatch (the contexts that handlers
// get end with their level).
func New(ctx context.Context, config Config) *Gather {
	ctx, cancel := context.WithCancelCause(ctx)
	ctx, span := gatherSpan(ctx, config.Name)
	n := int64(config.Limits.MaxConcurrentDownloads)
	return &Gather{
		Config:    config,
		ctx:       ctx,
		cancel:    cancel,
		span:      span,
		listings:  semaphore.NewWeighted(n),
		downloads: semaphore.NewWeighted(n),
		source:    newSourceLabel(config.Name),
		bySubj:    map[digest.Digest]*subject{},
		blobs:     map[contentKey]*blob{},
		sized:     map[contentKey]bool{},
	}
}

// Image tells of a manifest or index that belongs to the image itself, and of the indexes
// that name it; the root has none. Each is asked about once. Other descriptors that an
// index names are passed over; a root of another type is not asked about and so unknown.
func (g *Gather) Image(desc ocispec.Descriptor, parents ...digest.Digest) {
	if !g.add(desc, g.Selection.Depth(), true, parents...) {
		g.unasked.Add(1)
		log.G(g.ctx).WithField("image", g.Name).WithField("subject", desc.Digest).
			Warnf("referrers: not asked for: over the limit of %d subjects a pull", maxSubjects)
	}
}

// Embedded tells of a manifest of the image's own index that refers to a subject
// which Image was told of: BuildKit's attestations lie there, whatever the
// registry lists. The index, which is verified, says what they refer to.
func (g *Gather) Embedded(subject digest.Digest, desc ocispec.Descriptor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.bySubj[subject]
	if s == nil || g.closed || !g.Selection.Wants(policy.TypeBuildKitAttestation) {
		return
	}
	desc.ArtifactType = policy.TypeBuildKitAttestation
	if s.embedded++; s.embedded > g.Limits.MaxReferrers {
		s.note(discovery.Truncated, g.overLimit(desc, embedded))
		return
	}
	for _, c := range g.withinPullLocked(s, []candidate{{Descriptor: desc, way: embedded, legacy: policy.TypeBuildKitAttestation}}, &g.takes) {
		g.wg.Go(func() { g.take(s, c) })
	}
}

// add starts to work on a subject. It is false where that would be one too many.
func (g *Gather) add(desc ocispec.Descriptor, depth int, image bool, parents ...digest.Digest) bool {
	root := image && len(parents) == 0
	manifest := images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType)
	if !manifest && !root {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if known := g.bySubj[desc.Digest]; known != nil {
		if image {
			known.image.Store(true)
			known.parents = append(known.parents, parents...)
		}
		return true
	}
	if g.closed {
		return true
	}
	count := len(g.subjects) - g.images
	if image {
		count = g.images
	}
	if count == maxSubjects {
		return false
	}
	s := &subject{desc: desc, depth: depth, parents: parents, status: discovery.Unknown, budget: &g.budget}
	s.image.Store(image)
	if image {
		g.images++
	}
	g.subjects = append(g.subjects, s)
	g.bySubj[desc.Digest] = s
	if !manifest { // the registry chooses the type, and must not choose its way around the rules
		s.note(discovery.Unknown, Left{Reason: fmt.Sprintf("not asked: its media type %q is neither a manifest's nor an index's", desc.MediaType)})
		return true
	}
	g.wg.Go(func() { g.discover(s) })
	return true
}

// Wait waits until all referrers are in, at most for the timeout, and returns what
// is known of each subject. No work is left when it returns. Nothing is tied yet:
// that is for Tie, once the outcome may stand.
func (g *Gather) Wait(ctx context.Context) *Outcome {
	done := make(chan struct{})
	go func() {
		g.wg.Wait()
		close(done)
	}()
	timer := time.NewTimer(g.Limits.Timeout)
	defer timer.Stop()
	timedOut := false
	select {
	case <-done:
	case <-timer.C:
		timedOut = true
		g.cancel(fmt.Errorf("not in within %s after the image itself (key timeout)", g.Limits.Timeout))
	case <-ctx.Done():
		g.cancel(context.Cause(ctx))
	}
	<-done
	g.close()
	g.cancel(errClosed)
	out := g.settle()
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
