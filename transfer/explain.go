package transfer

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
)

// explain does what a pull does, but for the image, and stores nothing.
func (t *Transferrer) explain(ctx context.Context, src transfer.ImageFetcher, dst *explain.Destination) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, release, err := t.withLease(ctx)
	if err != nil {
		return err
	}
	defer release()
	p, err := t.newPull(ctx, src, nil)
	if err != nil {
		return err
	}
	defer p.close()
	p.dry = true

	name, root, err := p.resolve(ctx)
	if err != nil {
		return fmt.Errorf("failed to resolve image: %w", err)
	}
	if err := p.start(ctx, name, root); err != nil {
		return err
	}
	if p.gather == nil { // nothing is taken, so that nothing is asked
		return dst.Send(p.explanation(root.Digest, nil, nil))
	}
	told, err := p.tellManifests(ctx, root, orDefault(dst.Platforms()), nil)
	if err != nil {
		return err
	}
	outcome := p.gather.Wait(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return dst.Send(p.explanation(root.Digest, outcome, told.platformOf))
}

// explanation puts into words what the gather found; a nil outcome is of one that
// did not ask.
func (p *pull) explanation(root digest.Digest, outcome *gather.Outcome, platformOf map[string]string) *explain.Explanation {
	e := &explain.Explanation{
		Image: p.name, Digest: root,
		Rule: p.selection.Origin(), Selection: p.selection.String(), Subjects: []explain.Subject{},
	}
	if outcome == nil {
		return e
	}
	if err := outcome.Enforce(p.name, p.selection); err != nil {
		e.Refused = err.Error()
	}
	// The image's own in its order; referrers are met in any.
	subjects := slices.Clone(outcome.Subjects)
	slices.SortStableFunc(subjects, func(a, b gather.Subject) int {
		switch {
		case a.Image && b.Image:
			return 0
		case a.Image:
			return -1
		case b.Image:
			return 1
		}
		return cmp.Compare(a.Digest, b.Digest)
	})
	for _, s := range subjects {
		e.Subjects = append(e.Subjects, explained(s, platformOf[s.Digest.String()]))
	}
	return e
}

func explained(s gather.Subject, platform string) explain.Subject {
	out := explain.Subject{
		Digest: s.Digest, Platform: platform, Image: s.Image, Status: s.Status,
		Answers: []explain.Answer{}, Taken: []explain.Referrer{}, Left: []explain.Referrer{},
	}
	answers := slices.Clone(s.Answers)
	slices.SortStableFunc(answers, func(a, b discovery.Answer) int {
		if a.Via == discovery.ViaCosignTag && b.Via == discovery.ViaCosignTag { // asked at the same time
			return cmp.Compare(a.Request, b.Request)
		}
		return cmp.Compare(order(a), order(b))
	})
	for _, a := range answers {
		out.Answers = append(out.Answers, explain.Answer{Host: a.Host, Request: a.Request, Code: a.Code, Status: a.Status, Detail: a.Detail})
	}
	for _, t := range s.Taken {
		out.Taken = append(out.Taken, explain.Referrer{Digest: t.Digest, ArtifactType: t.ArtifactType, Reason: t.Reason})
	}
	for _, l := range s.Left {
		out.Left = append(out.Left, explain.Referrer{Digest: l.Digest, ArtifactType: l.ArtifactType, Reason: l.Reason})
	}
	slices.SortStableFunc(out.Left, func(a, b explain.Referrer) int { return cmp.Compare(a.Digest, b.Digest) })
	return out
}

// order puts the answers about cosign's tags behind those about the listing.
func order(a discovery.Answer) int {
	if a.Via == discovery.ViaCosignTag {
		return 1
	}
	return 0
}
