// Package judge examines the evidence of an image, by the operator's trusts, and has package
// verdict say whether the image may run.
//
// A [Judge] is the daemon's; a [Case] is one image. [Case.Manifest] names what must hold,
// [Case.Examine] takes a referrer that is there, and [Case.Verdict] says what that amounts to,
// at any time: a pull asks after each referrer, `ctr referrers verify` once all that is
// stored has been examined ([Case.AddStored]).
package judge

import (
	"context"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

const (
	// maxPieces is how many pieces of evidence of one image are examined.
	maxPieces = 1024
	// maxBytes is how many bytes of evidence of one image are examined: they take seconds.
	maxBytes = 64 << 20
	// maxAbove is of how many indexes above a manifest evidence counts.
	maxAbove = 64
)

// Observer counts evidence.
type Observer interface {
	// Evidence is told of each piece that was examined.
	Evidence(format evidence.Format, result evidence.Result)
}

// Judge judges images by the operator's trusts. It is safe for concurrent use.
type Judge struct {
	trusts   *trust.Store
	observer Observer
	// room bounds the bytes of evidence that are in memory at a time, of all images; far those
	// that come from a registry, which may be slow.
	room, far *semaphore.Weighted
}

// New returns a Judge. The observer may be nil.
func New(trusts *trust.Store, observer Observer) *Judge {
	return &Judge{trusts: trusts, observer: observer, room: semaphore.NewWeighted(evidence.MaxSize), far: semaphore.NewWeighted(evidence.MaxSize)}
}

// Generation grows whenever a trust changes. It looks at the files of all trusts.
func (j *Judge) Generation(ctx context.Context) uint64 { return j.trusts.Now(ctx).Generation }

// ReadFunc reads a blob of evidence, and verifies that it is what the descriptor says.
type ReadFunc func(context.Context, ocispec.Descriptor) ([]byte, error)

// Config is what a Case is about.
type Config struct {
	// Image is the image's reference, Repository the name of its repository with the registry.
	Image, Repository string
	// Selection governs the image, and verifies it.
	Selection *policy.Selection
	// Read reads a blob of evidence, and ReadManifest a referrer's manifest.
	Read, ReadManifest ReadFunc
	// Recorded says that the image is judged as it is stored, and not as it comes in.
	Recorded bool
	// Far says that they may read from a registry, for as long as that takes.
	Far bool
}

func (c *Case) room() *semaphore.Weighted {
	if c.config.Far {
		return c.j.far
	}
	return c.j.room
}

// Case is one image, of which evidence comes in. It is safe for concurrent use.
type Case struct {
	j      *Judge
	config Config
	by     []string // names of the trusts that the requirements name
	types  []string // predicate types that they ask for

	mu        sync.Mutex
	set       *trust.Set
	manifests []verdict.Manifest // but for what lies above them
	parents   map[digest.Digest][]digest.Digest
	unread    map[digest.Digest]bool // indexes of which it is not known what they name
	referrers []referrer
	pieces    []verdict.Piece
	looked    []Subject
	early     bool // ends AddStored when the image is verified
	cut       string
	bytes     int64                // of evidence that was examined
	weighed   map[blobKey]weighing // what was examined
	changed   chan struct{}
}

// Open opens the case of an image, which is judged by the trusts of now until
// [Case.Refresh] is called.
func (j *Judge) Open(ctx context.Context, config Config) *Case {
	c := &Case{j: j, config: config, set: j.trusts.Now(ctx), changed: make(chan struct{}),
		weighed: map[blobKey]weighing{}, parents: map[digest.Digest][]digest.Digest{}, unread: map[digest.Digest]bool{}}
	requirements := config.Selection.Requirements()
	for _, r := range requirements {
		c.by = append(c.by, r.By...)
	}
	slices.Sort(c.by)
	c.by = slices.Compact(c.by)
	c.types = verdict.PredicateTypes(requirements)
	return c
}

// Manifest names a manifest of the image that can be run, and an index that names it; the
// root has none.
func (c *Case) Manifest(dgst digest.Digest, platform string, parents ...digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parents[dgst] = append(c.parents[dgst], parents...)
	if !c.hasManifest(dgst) {
		c.manifests = append(c.manifests, verdict.Manifest{Digest: dgst, Platform: platform})
		c.notify()
	}
}

// HasManifest reports whether Manifest was called with the manifest.
func (c *Case) HasManifest(dgst digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasManifest(dgst)
}

func (c *Case) hasManifest(dgst digest.Digest) bool {
	return slices.ContainsFunc(c.manifests, func(m verdict.Manifest) bool { return m.Digest == dgst })
}

// Index names an index of the image, and one that names it; the root has none. The case is
// not complete until IndexRead has been called.
func (c *Case) Index(dgst digest.Digest, parents ...digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parents[dgst] = append(c.parents[dgst], parents...)
	if _, known := c.unread[dgst]; !known {
		c.unread[dgst] = true
	}
}

// IndexRead says that Manifest and Index were called with all that the index names.
func (c *Case) IndexRead(dgst digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unread[dgst] = false
	c.notify()
}

// Awaits reports whether the index was named, and IndexRead was not called with it.
func (c *Case) Awaits(dgst digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unread[dgst]
}

// Complete reports whether all manifests of the image are known.
func (c *Case) Complete() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, unread := range c.unread {
		if unread {
			return false
		}
	}
	return true
}

// above returns the indexes that lead to a manifest, maxAbove at most. It is for those who
// hold c.mu.
func (c *Case) above(dgst digest.Digest) []digest.Digest {
	var out []digest.Digest
	for next := slices.Clone(c.parents[dgst]); len(next) > 0 && len(out) < maxAbove; next = next[1:] {
		if !slices.Contains(out, next[0]) {
			out = append(out, next[0])
			next = append(next, c.parents[next[0]]...)
		}
	}
	return out
}

// Changed returns a channel that is closed at the next change. Who waits gets it before
// looking at the case.
func (c *Case) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Notify tells who waits to look again.
func (c *Case) Notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notify()
}

// notify is for those who hold c.mu.
func (c *Case) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Holds reports whether the image is verified by the evidence so far.
func (c *Case) Holds() bool {
	return c.now(nil).Holds()
}

// Meets reports whether all requirements of the kind hold of the subject by the evidence so
// far, on it and on the indexes above it.
func (c *Case) Meets(kind evidence.Kind, subject digest.Digest) bool {
	c.mu.Lock()
	above := c.above(subject)
	c.mu.Unlock()
	return c.now(nil).Meets(kind, verdict.Manifest{Digest: subject, Above: above})
}

// Verdict says what the evidence so far amounts to. status says how well the referrers of a
// subject are known, and why no better; nil where that has no bearing.
func (c *Case) Verdict(status func(digest.Digest) (labels.Status, string)) *verdict.Verdict {
	return c.now(status).Judge()
}

func (c *Case) now(status func(digest.Digest) (labels.Status, string)) *verdict.Case {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &verdict.Case{
		Image: c.config.Image, Selection: c.config.Selection, Status: status, Cut: c.cut, Stored: c.config.Recorded,
		Manifests: slices.Clone(c.manifests), Pieces: slices.Clone(c.pieces),
	}
	for i := range out.Manifests {
		out.Manifests[i].Above = c.above(out.Manifests[i].Digest)
	}
	return out
}
