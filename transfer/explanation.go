package transfer

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// explanation puts into words what the gather found; a nil outcome is of one that
// did not ask.
func (q *query) explanation(ctx context.Context, root digest.Digest, out *outcome.Outcome, platformOf map[string]string) *explain.Explanation {
	limits := q.t.config.Limits
	e := &explain.Explanation{
		Image: q.name, Digest: root, Stored: q.isStored(ctx, root),
		Rule: q.selection.RuleName(), Selection: q.selection.String(), Subjects: []outcome.Subject{},
		Limits: explain.Limits{
			Timeout: limits.Timeout.String(), MaxReferrers: limits.MaxReferrers, MaxBlobSize: limits.MaxBlobSize,
			MaxTotalSize: limits.MaxTotalSize, MaxConcurrentDownloads: limits.MaxConcurrentDownloads,
		},
		CosignTags: string(q.t.config.Cosign),
		Memory:     q.recorder.Used(),
	}
	if wait := q.recorder.RetryAfter(); wait > 0 {
		e.RetryAfter = (wait + time.Second - 1).Truncate(time.Second).String()
	}
	if q.selection.Denied() {
		e.Verdict = (&verdict.Case{Image: q.name, Selection: q.selection}).Judge()
		e.Refused = refusal{e.Verdict.Reason}.Error()
	}
	if out == nil {
		return e
	}
	e.TimedOut, e.Unasked, e.Verdict = out.TimedOut, out.Unasked, q.judged
	if err := q.refusedBy(out); err != nil {
		e.Refused = err.Error()
	}
	for _, s := range inOrder(out.Subjects) {
		e.Subjects = append(e.Subjects, q.explained(ctx, s, platformOf[s.Digest.String()]))
	}
	return e
}

// refusedBy returns why a rule would refuse a pull with the outcome, nil where none would.
func (q *query) refusedBy(out *outcome.Outcome) error {
	if v := q.judged; v != nil && v.Result == verdict.Refused && v.Mode == policy.VerifyEnforce {
		return refusal{v.Reason}
	}
	return out.Enforce(q.name, q.selection)
}

// inOrder sorts the image's own subjects, in their order, before referrers, which are
// met in any.
func inOrder(subjects []outcome.Subject) []outcome.Subject {
	subjects = slices.Clone(subjects)
	slices.SortStableFunc(subjects, func(a, b outcome.Subject) int {
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

// explained adds to what the gather found what the store has, and puts it in order.
func (q *query) explained(ctx context.Context, s outcome.Subject, platform string) outcome.Subject {
	tied := map[digest.Digest]bool{}
	if s.Stored = q.isStored(ctx, s.Digest); s.Stored {
		complete, _ := stored.Referrers(ctx, q.t.config.Store, ocispec.Descriptor{Digest: s.Digest}) // what cannot be read is not complete
		for _, r := range complete {
			tied[r.Digest] = true
		}
	}
	mark := func(referrers []outcome.Referrer) []outcome.Referrer {
		out := append([]outcome.Referrer{}, referrers...)
		for i := range out {
			out[i].Stored = tied[out[i].Digest]
		}
		return out
	}
	s.Platform, s.Taken, s.Skipped = platform, mark(s.Taken), mark(s.Skipped)
	slices.SortStableFunc(s.Skipped, func(a, b outcome.Referrer) int { return cmp.Compare(a.Digest, b.Digest) })
	s.Answers = append([]outcome.Answer{}, s.Answers...)
	slices.SortStableFunc(s.Answers, func(a, b outcome.Answer) int {
		if a.Via == outcome.EndpointCosignTag && b.Via == outcome.EndpointCosignTag { // asked at the same time
			return cmp.Compare(a.Request, b.Request)
		}
		return cmp.Compare(order(a), order(b))
	})
	return s
}

// isStored reports whether the manifest or index is in the content store.
func (q *query) isStored(ctx context.Context, dgst digest.Digest) bool {
	_, err := q.t.config.Store.Info(ctx, dgst)
	return err == nil
}

// order puts the answers about cosign's tags behind those about the listing.
func order(a outcome.Answer) int {
	if a.Via == outcome.EndpointCosignTag {
		return 1
	}
	return 0
}
