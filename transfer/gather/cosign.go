package gather

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

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

// askCosignTags looks for what cosign stored under tags of its own, of the types that are
// wanted and, unless always asked for, that the listing brings nothing of. Whether
// it does is known at once where it lists nothing of the set, and else when what it
// lists has been judged: a decoy must not hide the tag.
func (g *Gather) askCosignTags(d *discovered) {
	s := d.s
	if g.config.Cosign == CosignNever || !s.image.Load() || s.desc.Digest.Algorithm() != digest.SHA256 || s.tagsAsked.Swap(true) {
		return
	}
	for _, kind := range registry.CosignKinds {
		if !g.config.Selection.Wants(kind.ArtifactType) {
			continue
		}
		g.wg.Go(func() {
			if g.config.Cosign == CosignAuto && d.mayHold(kind.ArtifactType) {
				d.working.Wait()
				if s.tookSet(kind.ArtifactType) && !s.needs(g.config.Selection, kind.ArtifactType) {
					return
				}
			}
			g.askCosignTag(s, kind)
		})
	}
}

func (g *Gather) askCosignTag(s *subject, kind registry.CosignKind) {
	c := candidate{via: outcome.Tagged, legacy: kind.ArtifactType}
	c.ArtifactType = kind.ArtifactType
	if err := g.listings.Acquire(g.ctx, 1); err != nil {
		s.skip(c, labels.Unknown, context.Cause(g.ctx))
		return
	}
	ctx, span := g.cosignSpan(s, kind)
	found, answers := g.config.Repository.CosignTag(ctx, s.desc.Digest, kind)
	endCosign(span, answers)
	g.listings.Release(1)
	s.addTag(kind, found, answers)
	if found == nil {
		return
	}
	c.Descriptor, c.raw = found.Descriptor, found.Manifest
	// What is held in memory until there is a slot for it counts from now on.
	if err := g.quota.reserve(found.Descriptor); err != nil {
		s.skip(c, labels.Truncated, err)
		return
	}
	g.take(s, c)
}

// mayHold reports whether a candidate of the listing is, or may turn out to be, of the
// type's set.
func (d *discovered) mayHold(artifactType string) bool {
	set := artifact.SetOfType(artifactType)
	return len(d.undecided) > 0 || slices.ContainsFunc(d.chosen, func(c candidate) bool {
		return artifact.SetOf(artifact.Referrer{ArtifactType: c.ArtifactType, Annotations: c.Annotations}) == set
	})
}

// needs reports whether an artifact of the type would satisfy what is required and what was
// taken does not: a rule may require cosign's own type, and not any signature.
func (s *subject) needs(selection *policy.Selection, artifactType string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := outcome.Artifacts(s.taken)
	with := append(slices.Clone(found), artifact.Referrer{ArtifactType: artifactType})
	return len(selection.Missing(with)) < len(selection.Missing(found))
}

func (s *subject) tookSet(artifactType string) bool {
	set := artifact.SetOfType(artifactType)
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.taken, func(r outcome.Referrer) bool { return artifact.SetOf(r.Artifact()) == set })
}
