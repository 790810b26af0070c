package transfer

import (
	"cmp"
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// explanation puts into words what the gather found; a nil outcome is of one that
// did not ask.
func (p *pull) explanation(ctx context.Context, root digest.Digest, outcome *gather.Outcome, platformOf map[string]string) *explain.Explanation {
	limits := p.t.Limits
	e := &explain.Explanation{
		Image: p.name, Digest: root, Stored: p.isStored(ctx, root),
		Rule: p.selection.Origin(), Selection: p.selection.String(), Subjects: []explain.Subject{},
		Limits: explain.Limits{
			Timeout: limits.Timeout.String(), MaxReferrers: limits.MaxReferrers, MaxBlobSize: limits.MaxBlobSize,
			MaxTotalSize: limits.MaxTotalSize, MaxConcurrentDownloads: limits.MaxConcurrentDownloads,
		},
		CosignTags: string(p.t.Cosign),
	}
	if outcome == nil {
		return e
	}
	e.TimedOut, e.Unasked = outcome.TimedOut, outcome.Unasked
	if err := outcome.Enforce(p.name, p.selection); err != nil {
		e.Refused = err.Error()
	}
	for _, s := range inOrder(outcome.Subjects) {
		e.Subjects = append(e.Subjects, p.explained(ctx, s, platformOf[s.Digest.String()]))
	}
	return e
}

// inOrder sorts the image's own subjects, in their order, before referrers, which are
// met in any.
func inOrder(subjects []gather.Subject) []gather.Subject {
	subjects = slices.Clone(subjects)
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
	return subjects
}

func (p *pull) explained(ctx context.Context, s gather.Subject, platform string) explain.Subject {
	out := explain.Subject{
		Digest: s.Digest, Platform: platform, Image: s.Image, Status: s.Status,
		Answers: answers(s), Taken: []explain.Referrer{}, Left: []explain.Referrer{},
	}
	tied := map[digest.Digest]bool{}
	if out.Stored = p.isStored(ctx, s.Digest); out.Stored {
		whole, _ := stored.Referrers(ctx, p.t.Store, s.Descriptor) // what cannot be read is not whole
		for _, r := range whole {
			tied[r.Digest] = true
		}
	}
	for _, t := range s.Taken {
		out.Taken = append(out.Taken, explain.Referrer{
			Digest: t.Digest, ArtifactType: t.ArtifactType, Via: string(t.Way), Stored: tied[t.Digest], Reason: t.Reason,
		})
	}
	for _, l := range s.Left {
		out.Left = append(out.Left, explain.Referrer{
			Digest: l.Digest, ArtifactType: l.ArtifactType, Via: string(l.Way), Stored: tied[l.Digest], Reason: l.Reason,
			Status: l.Status, Limit: string(l.Limit),
		})
	}
	slices.SortStableFunc(out.Left, func(a, b explain.Referrer) int { return cmp.Compare(a.Digest, b.Digest) })
	return out
}

func answers(s gather.Subject) []explain.Answer {
	given := slices.Clone(s.Answers)
	slices.SortStableFunc(given, func(a, b discovery.Answer) int {
		if a.Via == discovery.ViaCosignTag && b.Via == discovery.ViaCosignTag { // asked at the same time
			return cmp.Compare(a.Request, b.Request)
		}
		return cmp.Compare(order(a), order(b))
	})
	out := []explain.Answer{}
	for _, a := range given {
		out = append(out, explain.Answer{
			Host: a.Host, Mirror: a.Mirror, Via: a.Via, Request: a.Request, Code: a.Code,
			Status: a.Status, Limit: string(gather.LimitOfAnswer(a)), Detail: a.Detail,
		})
	}
	return out
}

// isStored reports whether the manifest or index is in the content store.
func (p *pull) isStored(ctx context.Context, dgst digest.Digest) bool {
	_, err := p.t.Store.Info(ctx, dgst)
	return err == nil
}

// order puts the answers about cosign's tags behind those about the listing.
func order(a discovery.Answer) int {
	if a.Via == discovery.ViaCosignTag {
		return 1
	}
	return 0
}
