package gather

import (
	"context"
	"errors"
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// discovered is the work on one subject's listing.
type discovered struct {
	g         *Gather
	s         *subject
	chosen    []candidate    // that the listing's type decides on
	undecided []candidate    // that only their manifest can decide on
	working   sync.WaitGroup // on both

	bundles []artifact.Referrer // sigstore's, that are listed and not wanted
}

// discover asks what refers to the subject, and starts to take what is wanted, of
// each page of the listing while the next is on its way.
func (g *Gather) discover(s *subject) {
	defer close(s.discovered)
	d := &discovered{g: g, s: s}
	listing, err := g.list(s, d.choose)
	if err != nil {
		s.doubt(err)
		return
	}
	s.setListing(listing)
	for _, r := range listing.Rejected {
		d.reject(r)
	}
	d.decide()
	g.askCosignTags(d)
}

func (g *Gather) list(s *subject, found func([]ocispec.Descriptor)) (registry.Listing, error) {
	if err := g.listings.Acquire(g.ctx, 1); err != nil {
		return registry.Listing{}, context.Cause(g.ctx)
	}
	defer g.listings.Release(1)
	ctx, span := g.listSpan(s)
	listing, err := g.config.Repository.ListEach(ctx, s.desc.Digest, found)
	endListing(span, listing, err)
	if cause := context.Cause(g.ctx); err == nil && cause != nil && listing.Status == labels.Unknown {
		err = cause
	}
	return listing, err
}

// start does work that the gather, and cosign's tags, wait for.
func (d *discovered) start(work func()) {
	d.working.Add(1)
	d.g.start(func() {
		defer d.working.Done()
		work()
	})
}

// choose applies the policy before the cap, so that decoys of other types cannot push a
// signature past it. What the listing's type decides is taken at once, in the registry's
// order; what only its manifest can decide has what room the whole listing leaves.
func (d *discovered) choose(page []ocispec.Descriptor) {
	for _, desc := range page {
		c := candidate{Descriptor: desc, via: outcome.Listed}
		decision := d.g.judgeEntry(desc)
		switch decision.Verdict {
		case policy.Skip:
			d.s.skip(c, "", errors.New(decision.Reason))
			d.noteBundle(desc)
		case policy.Ask:
			// A later page contradicted an entry that is delivered again: keep its first
			// position.
			if !slices.ContainsFunc(d.undecided, func(u candidate) bool { return u.Digest == c.Digest }) {
				c.undecided = true
				d.undecided = append(d.undecided, c)
			}
		default:
			if err := d.g.quota.accept(d.s.desc.Digest, outcome.Listed); err != nil {
				d.s.skip(c, labels.Truncated, err)
				continue
			}
			d.chosen = append(d.chosen, c)
			d.start(func() { d.g.take(d.s, c) })
		}
	}
}

// noteBundle keeps what cosign's tags may be spared by.
func (d *discovered) noteBundle(desc ocispec.Descriptor) {
	if len(d.bundles) == 0 && artifact.IsBundle(artifact.NormalizeType(desc.ArtifactType)) {
		d.bundles = append(d.bundles, artifact.Referrer{ArtifactType: desc.ArtifactType, Annotations: desc.Annotations})
	}
}

// judgeEntry judges a referrer by what the listing says of it.
func (g *Gather) judgeEntry(desc ocispec.Descriptor) policy.Decision {
	return g.config.Selection.Decide(artifact.Referrer{ArtifactType: desc.ArtifactType, Annotations: desc.Annotations})
}

// reject records an entry that cannot be fetched. It may have been what is wanted.
func (d *discovered) reject(r registry.Rejection) {
	c := candidate{Descriptor: r.Descriptor, via: outcome.Listed}
	why := errors.New("refused: " + r.Reason)
	switch {
	case d.g.judgeEntry(r.Descriptor).Verdict == policy.Skip:
		d.s.skip(c, "", why)
	case r.Status == labels.Truncated:
		d.s.skip(c, r.Status, limitError{why, outcome.LimitManifest})
	default:
		d.s.skip(c, r.Status, why)
	}
}

// decide has the manifests of the undecided decide. As many of the first as there is room
// for are read side by side, whatever they turn out to be; those behind them one after the
// other in the listing's order: which of them are taken must not depend on whose manifest
// comes first.
func (d *discovered) decide() {
	var undecided []candidate
	for _, c := range d.undecided {
		if err := d.g.quota.ask(); err != nil {
			d.s.skip(c, labels.Truncated, err)
			continue
		}
		undecided = append(undecided, c)
	}
	room := min(d.g.quota.left(d.s.desc.Digest), len(undecided))
	var first sync.WaitGroup
	for _, c := range undecided[:room] {
		first.Add(1)
		d.start(func() {
			a, _ := d.g.receive(d.s, c)
			first.Done()
			d.g.bringContent(a)
		})
	}
	if rest := undecided[room:]; len(rest) > 0 {
		d.start(func() {
			first.Wait()
			d.decideInOrder(rest)
		})
	}
}

func (d *discovered) decideInOrder(undecided []candidate) {
	for i, c := range undecided {
		a, err := d.g.receive(d.s, c)
		d.start(func() { d.g.bringContent(a) }) // its content keeps no other waiting
		if limit := limitOf(err); limit != outcome.LimitReferrers && limit != outcome.LimitPull {
			continue
		}
		for _, c := range undecided[i+1:] { // no room is left, whatever they are
			d.s.skip(c, labels.Truncated, err)
		}
		return
	}
}
