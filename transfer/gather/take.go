package gather

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/tracing"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// candidate is a referrer that may be taken.
type candidate struct {
	ocispec.Descriptor
	via outcome.Origin
	raw []byte // the manifest, where it is known already
	// legacy is the artifact type that it is taken for, where not its manifest
	// but one of cosign's tags, or the image's index, names the subject.
	legacy    string
	undecided bool          // the listing does not say what it is
	stored    *content.Info // of the manifest, where it was read from the store
}

// sighting is a referrer as it was met in one of the ways.
type sighting struct {
	digest digest.Digest
	via    outcome.Origin
}

// attempt is the taking of a candidate.
type attempt struct {
	candidate
	subject *subject
	earlier *attempt // to take the same as it was met in another way
	span    *tracing.Span

	// Set by receiveManifest.
	manifest *artifact.Manifest
	reason   string // why it is taken
	kept     bool   // it is stored and tied, see kept.go

	done  chan struct{}
	taken bool // to be read when done
}

// attempt begins to take a candidate, nil where it was met in this way before. One that
// was met in another way is tried again where that failed: a listing that has no such
// manifest, or says something wrong of it, must not hide what the image's index holds.
func (s *subject) attempt(c candidate) *attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := sighting{c.Digest, c.via}
	if s.seen[key] {
		return nil
	}
	if s.seen == nil {
		s.seen, s.latest = map[sighting]bool{}, map[digest.Digest]*attempt{}
	}
	s.seen[key] = true
	a := &attempt{candidate: c, subject: s, earlier: s.latest[c.Digest], done: make(chan struct{})}
	s.latest[c.Digest] = a
	return a
}

// take brings one referrer in: its manifest, which decides what it is and what
// it refers to, then all that it names.
func (g *Gather) take(s *subject, c candidate) {
	a, _ := g.receive(s, c)
	g.bringContent(a)
}

// receive begins an attempt to take a candidate: it reads the manifest, decides by it, and
// stores what is wanted. What is not taken, or was met before, gives no attempt.
func (g *Gather) receive(s *subject, c candidate) (*attempt, error) {
	a := s.attempt(c)
	if a == nil {
		return nil, nil
	}
	if err := g.receiveManifest(a); err != nil {
		g.conclude(a, err)
		return nil, err
	}
	return a, nil
}

// errTaken ends an attempt to take what an earlier one took.
var errTaken = errors.New("it was taken already, as it was met in another way")

// dropped is an error for what turned out to be none of the subject's wanted
// referrers: nothing is missing without it.
type dropped struct{ reason string }

func (d dropped) Error() string { return d.reason }

// receiveManifest reads the candidate's manifest, decides by it whether it is taken, and stores it
// then: one that is not wanted leaves no trace. All of that takes one slot, so that few
// manifests are in memory at a time.
func (g *Gather) receiveManifest(a *attempt) error {
	if a.earlier != nil && a.earlier.succeeded(g.ctx) {
		return errTaken
	}
	a.span = g.takeSpan(a)
	if err := g.downloads.Acquire(g.ctx, 1); err != nil {
		return err
	}
	defer g.downloads.Release(1)
	data, m, err := g.readManifest(&a.candidate)
	if err != nil {
		return err
	}
	if err := g.judge(a, m); err != nil {
		g.quota.discard(data)
		return err
	}
	a.manifest = m
	childLabels := labels.Children(m.Children()...)
	if a.legacy != "" {
		childLabels[labels.ArtifactTypeKey] = m.ArtifactType // as it was judged
	}
	if a.kept = g.kept(a, childLabels); a.kept {
		return nil
	}
	return g.storeManifest(a.Descriptor, data, childLabels)
}

// judge holds what the manifest says against the rule, and then against the limits.
func (g *Gather) judge(a *attempt, m *artifact.Manifest) error {
	if err := g.admit(a, m); err != nil {
		return err
	}
	if a.undecided {
		if err := g.quota.accept(a.subject.desc.Digest, a.via); err != nil {
			return err
		}
	}
	return g.quota.reserve(a.Descriptor)
}

// admit returns nil, and notes the reason, for the manifest of a referrer of the subject
// that is wanted, and else a dropped. A manifest that says nothing of its type itself gets
// that by which it was met.
func (g *Gather) admit(a *attempt, m *artifact.Manifest) error {
	switch {
	case m.Subject != nil && m.Subject.Digest != a.subject.desc.Digest:
		return dropped{fmt.Sprintf("refused: its manifest's subject is %.80q", m.Subject.Digest)}
	case m.Subject == nil && a.via == outcome.Listed:
		return dropped{"refused: its manifest names no subject"}
	case a.via != outcome.Listed && g.isImage(a.Digest):
		// A tag can point anywhere, and an index call anything an attestation.
		return dropped{"refused: it is a part of the image itself"}
	case a.via == outcome.Tagged && artifact.SetOf(m.Referrer()) != artifact.SetOfType(a.legacy):
		return dropped{fmt.Sprintf("refused: what lies under cosign's tag is no %s", a.legacy)}
	case a.via == outcome.Embedded && !m.IsBuildKitAttestation() && (m.Untyped() || m.ArtifactType == artifact.TypeBuildKitAttestation || m.Subject == nil):
		// One of another type has to name its subject itself.
		return dropped{"refused: the image's index calls it an attestation, which it is not"}
	case a.legacy != "" && m.Untyped():
		m.ArtifactType = a.legacy // the manifest says nothing itself
	}
	decision := g.config.Selection.DecideManifest(m.Referrer())
	if decision.Verdict != policy.Take {
		return dropped{decision.Reason}
	}
	a.reason = decision.Reason
	return nil
}

// isImage reports whether the digest is a manifest or index of the image itself.
func (g *Gather) isImage(dgst digest.Digest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.bySubj[dgst]
	return s != nil && s.image.Load()
}

// bringContent brings in what the manifest of an attempt names, and so concludes it. nil is
// passed over.
func (g *Gather) bringContent(a *attempt) {
	if a == nil {
		return
	}
	// An index of the image that refers to a manifest in it would stand beneath what it
	// holds, and a client that draws the tree go round in a circle.
	if !g.isImage(a.Digest) {
		g.report(event{"complete", a.Descriptor, a.subject.desc, a.Size})
	}
	// Its own referrers need not wait for its blobs.
	vouched := g.config.Selection.FollowsEvidence(a.manifest) && a.subject.image.Load()
	if vouched || a.subject.depth > 1 && g.config.Selection.Follows(a.manifest.Referrer()) {
		below := &subject{desc: artifact.Plain(a.Descriptor), depth: max(a.subject.depth-1, 1), kept: a.kept, vouched: vouched}
		if err := g.add(below, false); err != nil {
			a.subject.skip(a.candidate, labels.Truncated, fmt.Errorf("its own referrers were not asked for: %w", err))
		}
	}
	g.conclude(a, g.fetchContent(a))
}

// conclude records what became of an attempt.
func (g *Gather) conclude(a *attempt, err error) {
	defer close(a.done)
	// What is concluded is remembered, and not what was read for it.
	defer func() { a.manifest, a.raw, a.stored = nil, nil, nil }()
	if errors.Is(err, errTaken) {
		a.taken = true
		return
	}
	endTake(a.span, a.manifest, err)
	switch {
	case err == nil:
		a.taken = true
		a.subject.addTaken(outcome.Referrer{
			Digest: a.Digest, Size: a.Size, ArtifactType: a.manifest.ArtifactType, Via: a.via, Reason: a.reason,
			Annotations: a.manifest.Annotations, Hollow: a.manifest.Hollow,
		})
		log.G(g.ctx).WithField("subject", a.subject.desc.Digest).WithField("digest", a.Digest).
			WithField("artifactType", a.manifest.ArtifactType).Debug("referrers: taken")
		if g.config.Examiner != nil {
			g.config.Examiner.Examine(g.ctx, a.subject.desc, a.Descriptor, a.manifest)
		}
	case errors.As(err, new(dropped)):
		a.subject.skip(a.candidate, "", err)
	case errdefs.IsResourceExhausted(err):
		a.subject.skip(a.candidate, labels.Truncated, err)
	default:
		if cause := context.Cause(g.ctx); cause != nil {
			err = cause
		}
		a.subject.skip(a.candidate, labels.Unknown, err)
	}
}

// succeeded waits for the attempt.
func (a *attempt) succeeded(ctx context.Context) bool {
	select {
	case <-a.done:
		return a.taken
	case <-ctx.Done():
		return false
	}
}
