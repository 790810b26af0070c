package gather

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// CosignTags says when cosign's own tags are asked for.
type CosignTags string

// The ways to look for cosign's tags.
const (
	// CosignAuto asks for a tag when the listing holds nothing of its set, and no sigstore
	// bundle.
	CosignAuto CosignTags = "auto"
	// CosignAlways asks for it in any case.
	CosignAlways CosignTags = "always"
	// CosignNever does not ask.
	CosignNever CosignTags = "never"
)

// Spares reports whether a tag of cosign's need not be asked for where a listing brought
// these referrers: one is of the tag's set, or a sigstore bundle, since cosign 3 writes
// bundles and no tags. A tag is not spared that may hold what is required and they lack: a
// rule may require cosign's own type, and not any signature.
func (t CosignTags) Spares(kind registry.CosignKind, listed []artifact.Referrer, selection *policy.Selection) bool {
	if t != CosignAuto {
		return t == CosignNever
	}
	if !slices.ContainsFunc(listed, func(r artifact.Referrer) bool { return standsFor(r, kind) }) {
		return false
	}
	with := append(slices.Clone(listed), artifact.Referrer{ArtifactType: kind.ArtifactType})
	return len(selection.Missing(with)) == len(selection.Missing(listed))
}

// standsFor reports whether a listed referrer makes it unlikely that the tag is there.
func standsFor(r artifact.Referrer, kind registry.CosignKind) bool {
	return artifact.SetOf(r) == artifact.SetOfType(kind.ArtifactType) || artifact.IsBundle(artifact.NormalizeType(r.ArtifactType))
}

// askCosignTags looks for what cosign stored under tags of its own, of the types that are
// wanted, unless the listing spares it the question. Whether it does is known at once
// where it lists nothing that could, and else when what it lists has been judged: a decoy
// must not hide the tag.
func (g *Gather) askCosignTags(d *discovered) {
	s := d.s
	if g.config.Cosign == CosignNever || !s.image.Load() && !s.vouched || s.desc.Digest.Algorithm() != digest.SHA256 || s.tagsAsked.Swap(true) {
		return
	}
	for _, kind := range registry.CosignKinds {
		if !g.config.Selection.Wants(kind.ArtifactType) || s.vouched && kind.ArtifactType != artifact.TypeCosignSignature {
			continue
		}
		g.start(func() {
			if d.spared(kind) {
				return
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

// maySpare reports whether a candidate of the listing stands, or may turn out to stand, for
// the tag.
func (d *discovered) maySpare(kind registry.CosignKind) bool {
	return len(d.undecided) > 0 || len(d.bundles) > 0 || slices.ContainsFunc(d.chosen, func(c candidate) bool {
		return standsFor(artifact.Referrer{ArtifactType: c.ArtifactType, Annotations: c.Annotations}, kind)
	})
}

// spared reports whether the listing spares the question for the tag, once all of it has been
// judged where that matters. What is wanted counts when it has been taken; a bundle that is not wanted is one by
// the listing's word, since its manifest is not read.
func (d *discovered) spared(kind registry.CosignKind) bool {
	if d.g.config.Cosign != CosignAuto || !d.maySpare(kind) {
		return false
	}
	d.working.Wait()
	if d.g.needsTag(d.s, kind) {
		return false
	}
	d.s.mu.Lock()
	found := outcome.Artifacts(d.s.taken)
	d.s.mu.Unlock()
	return d.g.config.Cosign.Spares(kind, append(found, d.bundles...), d.g.config.Selection)
}

// needsTag reports whether the rule verifies, and what the listing brought is not all the
// evidence that it asks for: a bundle of a stranger hides no tag.
func (g *Gather) needsTag(s *subject, kind registry.CosignKind) bool {
	if g.config.Examiner == nil {
		return false
	}
	switch kind.ArtifactType {
	case artifact.TypeCosignSignature:
		return s.vouched || !g.config.Examiner.Meets(evidence.Signature, s.desc.Digest)
	case artifact.TypeCosignAttestation:
		return !g.config.Examiner.Meets(evidence.Attestation, s.desc.Digest)
	}
	return false
}
