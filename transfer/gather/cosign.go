package gather

import (
	"context"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

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
				if s.tookSet(kind.ArtifactType) && !s.needs(g.Selection, kind.ArtifactType) {
					return
				}
			}
			g.askCosign(s, kind)
		})
	}
}

func (g *Gather) askCosign(s *subject, kind discovery.CosignKind) {
	if err := g.listings.Acquire(g.ctx, 1); err != nil {
		s.note(discovery.Unknown, Left{ArtifactType: kind.ArtifactType, Way: tagged, Reason: context.Cause(g.ctx).Error()})
		return
	}
	ctx, span := g.cosignSpan(s, kind)
	found, answers := g.Registry.CosignTag(ctx, s.desc.Digest, kind)
	endCosign(span, answers)
	g.listings.Release(1)
	s.add(answers)
	s.mu.Lock()
	s.known.tag(kind.ArtifactType, found, answers)
	s.mu.Unlock()
	if found != nil {
		// What is held in memory until there is a slot for it counts from now on.
		if err := g.reserve(found.Descriptor); err != nil {
			s.note(discovery.Truncated, Left{Digest: found.Digest, ArtifactType: kind.ArtifactType, Way: tagged, Reason: err.Error(), Limit: limitOf(err)})
			return
		}
		g.take(s, candidate{Descriptor: found.Descriptor, manifest: found.Manifest, way: tagged, legacy: kind.ArtifactType})
	}
}

// holdsSet reports whether a candidate is, or may turn out to be, of the type's set.
func holdsSet(candidates []candidate, artifactType string) bool {
	set := policy.SetOf(policy.Referrer{ArtifactType: artifactType})
	return slices.ContainsFunc(candidates, func(c candidate) bool {
		return c.ask || policy.SetOf(policy.Referrer{ArtifactType: c.ArtifactType, Annotations: c.Annotations}) == set
	})
}

// needs reports whether an artifact of the type would satisfy what is required and what was
// taken does not: a rule may require cosign's own type, and not any signature.
func (s *subject) needs(sel *policy.Selection, artifactType string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := referrers(s.taken)
	with := append(slices.Clone(found), policy.Referrer{ArtifactType: artifactType})
	return len(sel.Missing(with)) < len(sel.Missing(found))
}

func (s *subject) tookSet(artifactType string) bool {
	set := policy.SetOf(policy.Referrer{ArtifactType: artifactType})
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.taken, func(t Taken) bool {
		return policy.SetOf(policy.Referrer{ArtifactType: t.ArtifactType, Annotations: t.Annotations}) == set
	})
}
