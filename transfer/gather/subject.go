package gather

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// subject is a manifest or index that is asked about.
type subject struct {
	desc  ocispec.Descriptor
	depth int // levels of referrers to take, this subject's own included
	image atomic.Bool

	embedded int // manifests of the image's index that refer to it; guarded by Gather.mu

	mu      sync.Mutex
	seen    map[digest.Digest]bool // referrers that are being taken, or were
	room    int                    // for those that only their manifest decides on
	listed  bool                   // the registry has answered
	base    discovery.Status       // no better than this, whatever it answers
	status  discovery.Status
	answers []discovery.Answer
	taken   []Taken
	left    []Left
}

// candidate is a referrer that may be taken.
type candidate struct {
	ocispec.Descriptor
	manifest []byte // where it is known already
	// legacy says that not the manifest but one of cosign's tags, or the
	// image's index, names the subject, and for which artifact type it does.
	legacy string
	cosign bool // it is a tag of cosign's
	ask    bool // the listing does not say what it is
}

// discover asks what refers to the subject, and starts to take what is wanted.
func (g *Gather) discover(s *subject) {
	listing, err := g.list(s)
	if err != nil {
		s.note(discovery.Unknown, Left{Reason: err.Error()})
		return
	}
	s.mu.Lock()
	s.answers = listing.Answers
	if s.status = s.base.Worse(listing.Status); s.status == discovery.Absent && len(s.taken) > 0 {
		s.status = discovery.Present
	}
	s.listed = true
	s.mu.Unlock()
	for _, r := range listing.Rejected {
		// What cannot be fetched may have been what was wanted.
		status := r.Status
		if g.decide(r.Descriptor).Verdict == policy.Skip {
			status = ""
		}
		s.note(status, Left{Digest: r.Digest, ArtifactType: r.ArtifactType, Reason: "refused: " + r.Reason})
	}
	candidates := g.choose(s, listing)
	var listed sync.WaitGroup
	for _, c := range candidates {
		listed.Add(1)
		g.wg.Go(func() {
			defer listed.Done()
			g.take(s, c)
		})
	}
	g.cosign(s, candidates, &listed)
}

func (g *Gather) list(s *subject) (discovery.Listing, error) {
	if err := g.listings.Acquire(g.ctx, 1); err != nil {
		return discovery.Listing{}, context.Cause(g.ctx)
	}
	defer g.listings.Release(1)
	listing, err := g.Registry.List(g.ctx, s.desc.Digest)
	if cause := context.Cause(g.ctx); err == nil && cause != nil && listing.Status == discovery.Unknown {
		err = cause
	}
	return listing, err
}

// decide judges a referrer by what the listing says of it.
func (g *Gather) decide(desc ocispec.Descriptor) policy.Decision {
	return g.Selection.Decide(policy.Referrer{ArtifactType: desc.ArtifactType, Annotations: desc.Annotations})
}

// choose applies the policy before the cap, so that decoys of other types cannot
// push a signature past it. What the listing's type decides comes first, in the
// registry's order; what only its manifest can decide has what room is left, and
// counts once the manifest has spoken.
func (g *Gather) choose(s *subject, listing discovery.Listing) []candidate {
	var sure, asked []candidate
	for _, desc := range listing.Referrers {
		switch d := g.decide(desc); {
		case d.Verdict == policy.Skip:
			s.note("", Left{Digest: desc.Digest, ArtifactType: desc.ArtifactType, Reason: d.Reason})
		case d.Verdict == policy.Ask:
			asked = append(asked, candidate{Descriptor: desc, ask: true})
		case len(sure) == g.Limits.MaxReferrers:
			s.note(discovery.Truncated, g.overLimit(desc))
		default:
			sure = append(sure, candidate{Descriptor: desc})
		}
	}
	s.room = g.Limits.MaxReferrers - len(sure)
	return append(g.withinPull(s, sure, &g.takes), g.withinPull(s, asked, &g.asks)...)
}

// withinPull cuts candidates to what one pull may take, or ask, in all.
func (g *Gather) withinPull(s *subject, candidates []candidate, count *int) []candidate {
	g.mu.Lock()
	n := min(len(candidates), maxSubjects-*count)
	*count += n
	g.mu.Unlock()
	for _, c := range candidates[n:] {
		s.note(discovery.Truncated, Left{Digest: c.Digest, ArtifactType: c.ArtifactType,
			Reason: fmt.Sprintf("over the limit of %d referrers a pull", maxSubjects)})
	}
	return candidates[:n]
}

// hasRoom says whether a referrer that its manifest decided on is within the cap.
func (s *subject) hasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room--
	return s.room >= 0
}

func (g *Gather) overLimit(desc ocispec.Descriptor) Left {
	return Left{Digest: desc.Digest, ArtifactType: desc.ArtifactType,
		Reason: fmt.Sprintf("over the limit of %d referrers a subject (key max_referrers)", g.Limits.MaxReferrers)}
}

// cosign looks for what cosign stored under tags of its own, of the types that are
// wanted and, unless always asked for, that the listing brings nothing of. Whether
// it does is known at once where it lists nothing of the set, and else when what it
// lists has been judged: a decoy must not hide the tag.
func (g *Gather) cosign(s *subject, candidates []candidate, listed *sync.WaitGroup) {
	if g.Cosign == CosignNever || !s.image.Load() || s.desc.Digest.Algorithm() != digest.SHA256 {
		return
	}
	for _, kind := range discovery.CosignKinds {
		if !g.Selection.Wants(kind.ArtifactType) {
			continue
		}
		g.wg.Go(func() {
			if g.Cosign == CosignAuto && holdsSet(candidates, kind.ArtifactType) {
				listed.Wait()
				if s.tookSet(kind.ArtifactType) {
					return
				}
			}
			g.askCosign(s, kind)
		})
	}
}

func (g *Gather) askCosign(s *subject, kind discovery.CosignKind) {
	if err := g.listings.Acquire(g.ctx, 1); err != nil {
		s.note(discovery.Unknown, Left{ArtifactType: kind.ArtifactType, Reason: context.Cause(g.ctx).Error()})
		return
	}
	found, answers := g.Registry.CosignTag(g.ctx, s.desc.Digest, kind)
	g.listings.Release(1)
	s.add(answers)
	if found != nil {
		g.take(s, candidate{Descriptor: found.Descriptor, manifest: found.Manifest, legacy: kind.ArtifactType, cosign: true})
	}
}

// holdsSet says whether a candidate is, or may turn out to be, of the type's set.
func holdsSet(candidates []candidate, artifactType string) bool {
	set := policy.SetOf(policy.Referrer{ArtifactType: artifactType})
	return slices.ContainsFunc(candidates, func(c candidate) bool {
		return c.ask || policy.SetOf(policy.Referrer{ArtifactType: c.ArtifactType, Annotations: c.Annotations}) == set
	})
}

func (s *subject) tookSet(artifactType string) bool {
	set := policy.SetOf(policy.Referrer{ArtifactType: artifactType})
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.taken, func(t Taken) bool {
		return policy.SetOf(policy.Referrer{ArtifactType: t.ArtifactType, Annotations: t.Annotations}) == set
	})
}

// take brings one referrer in: its manifest, which decides what it is and what
// it refers to, then all that it names.
func (g *Gather) take(s *subject, c candidate) {
	if !s.first(c.Digest) {
		return
	}
	m, reason, err := g.bring(s, c)
	var drop dropped
	switch {
	case err == nil:
	case errors.As(err, &drop):
		s.note("", Left{Digest: c.Digest, ArtifactType: c.ArtifactType, Reason: drop.reason})
		return
	case errdefs.IsResourceExhausted(err):
		s.note(discovery.Truncated, Left{Digest: c.Digest, ArtifactType: c.ArtifactType, Reason: err.Error()})
		return
	default:
		if cause := context.Cause(g.ctx); cause != nil {
			err = cause
		}
		s.note(discovery.Unknown, Left{Digest: c.Digest, ArtifactType: c.ArtifactType, Reason: err.Error()})
		return
	}
	desc := c.Descriptor
	desc.ArtifactType, desc.Annotations = m.ArtifactType, m.Annotations
	s.mu.Lock()
	s.taken = append(s.taken, Taken{Descriptor: desc, Reason: reason, cosign: c.cosign})
	if c.legacy != "" && s.status == discovery.Absent {
		s.status = discovery.Present // no listing shows it, but it is there
	}
	s.mu.Unlock()
	log.G(g.ctx).WithField("subject", s.desc.Digest).WithField("digest", c.Digest).
		WithField("artifactType", m.ArtifactType).Debug("referrers: taken")
	if s.depth > 1 && !g.add(ocispec.Descriptor{MediaType: c.MediaType, Digest: c.Digest, Size: c.Size}, s.depth-1, false) {
		s.note(discovery.Truncated, Left{Digest: c.Digest, ArtifactType: m.ArtifactType,
			Reason: fmt.Sprintf("its own referrers were not asked for: over the limit of %d subjects a pull", maxSubjects)})
	}
}

// dropped is an error for what turned out to be none of the subject's wanted
// referrers: nothing is missing without it.
type dropped struct{ reason string }

func (d dropped) Error() string { return d.reason }

// bring returns the manifest, and why the referrer is taken. The manifest is judged
// before it is stored: one that is not wanted leaves no trace.
func (g *Gather) bring(s *subject, c candidate) (*artifact.Manifest, string, error) {
	var reason string
	m, err := g.manifest(c, func(m *artifact.Manifest) error {
		switch {
		case m.Subject != nil && m.Subject.Digest != s.desc.Digest:
			return dropped{fmt.Sprintf("refused: its manifest's subject is %.80q", m.Subject.Digest)}
		case m.Subject == nil && c.legacy == "":
			return dropped{"refused: its manifest names no subject"}
		case c.cosign && (g.isImage(c.Digest) || policy.SetOf(m.Referrer()) != policy.SetOf(policy.Referrer{ArtifactType: c.legacy})):
			// A tag can point anywhere, at the image itself as well.
			return dropped{fmt.Sprintf("refused: what lies under cosign's tag is no %s", c.legacy)}
		case c.legacy != "" && (m.ArtifactType == "" || images.IsConfigType(m.ArtifactType)):
			m.ArtifactType = c.legacy // the manifest says nothing itself
		}
		d := g.Selection.DecideManifest(m.Referrer())
		if reason = d.Reason; d.Verdict != policy.Take {
			return dropped{reason}
		}
		if c.ask && !s.hasRoom() {
			return fmt.Errorf("%s: %w", g.overLimit(c.Descriptor).Reason, errdefs.ErrResourceExhausted)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	g.report(event{"complete", c.Descriptor, s.desc, c.Size})
	return m, reason, g.children(c.Descriptor, m, 0)
}

// isImage says whether the digest is a manifest or index of the image itself.
func (g *Gather) isImage(dgst digest.Digest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.bySubj[dgst]
	return s != nil && s.image.Load()
}

// first says whether the referrer is met for the first time: the registry may list
// what lies in the image's index as well.
func (s *subject) first(referrer digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[referrer] {
		return false
	}
	if s.seen == nil {
		s.seen = map[digest.Digest]bool{}
	}
	s.seen[referrer] = true
	return true
}

// note records what was left, and that the status can be no better than given.
func (s *subject) note(status discovery.Status, left Left) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left.Reason = discovery.Shorten(left.Reason)
	s.left = append(s.left, left)
	if !s.listed {
		s.base = s.base.Worse(status)
	}
	s.status = s.status.Worse(status)
}

// add records the answers about cosign's tags. One that is there makes present
// what the listing called absent.
func (s *subject) add(answers []discovery.Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, answers...)
	for i, a := range answers {
		if i == len(answers)-1 || answers[len(answers)-1].Status != discovery.Present {
			s.status = s.status.Worse(a.Status) // where one host had it, no other is missed
		}
	}
}

// why says in one line what is known of the subject's referrers, and why no more.
func (s *subject) why() string {
	parts := []string{string(s.status)}
	for _, a := range s.answers {
		if a.Status != discovery.Present {
			parts = append(parts, a.String())
		}
	}
	for _, l := range s.left {
		parts = append(parts, l.String())
	}
	const most = 6
	if len(parts) > most {
		parts = append(parts[:most], fmt.Sprintf("and %d more", len(parts)-most))
	}
	return strings.Join(parts, "; ")
}
