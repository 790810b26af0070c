package gather

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/containerd/v2/pkg/tracing"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// The spans of a pull's referrers: one for the gather, beneath the span of the
// pull, and beneath it one for each listing, each tag of cosign's that was asked
// for and each referrer. Text from the network is cut before it becomes an
// attribute. Where containerd does not trace they cost next to nothing.

func startSpan(ctx context.Context, operation string, opts ...tracing.SpanOpt) (context.Context, *tracing.Span) {
	return tracing.StartSpan(ctx, tracing.Name("transfer", "referrers", operation), opts...)
}

// endSpan ends a span. An error's text may be long and come from the network.
func endSpan(span *tracing.Span, err error) {
	if err != nil {
		err = errors.New(outcome.Shorten(err.Error()))
	}
	span.SetStatus(err)
	span.End()
}

func gatherSpan(ctx context.Context, image string) (context.Context, *tracing.Span) {
	return startSpan(ctx, "Gather", tracing.WithAttribute("image.ref", image))
}

func endGather(span *tracing.Span, out *outcome.Outcome) {
	taken := 0
	var err error
	for _, s := range out.Subjects {
		taken += len(s.Taken)
		if s.Status == labels.Unknown && err == nil {
			err = errors.New(s.Digest.String() + ": " + strings.Join(s.Doubts(), "; "))
		}
	}
	span.SetAttributes(
		tracing.Attribute("referrers.subjects", len(out.Subjects)),
		tracing.Attribute("referrers.taken", taken),
		tracing.Attribute("referrers.bytes", out.Bytes))
	endSpan(span, err)
}

func (g *Gather) listSpan(s *subject) (context.Context, *tracing.Span) {
	return startSpan(g.ctx, "List", subjectAttribute(s))
}

func endListing(span *tracing.Span, listing registry.Listing, err error) {
	span.SetAttributes(
		tracing.Attribute("referrers.status", string(listing.Status)),
		tracing.Attribute("referrers.listed", len(listing.Referrers)),
		tracing.Attribute("referrers.rejected", len(listing.Rejected)))
	if err == nil && listing.Status == labels.Unknown {
		err = unknown(listing.Answers)
	}
	endSpan(span, err)
}

func (g *Gather) cosignSpan(s *subject, kind registry.CosignKind) (context.Context, *tracing.Span) {
	return startSpan(g.ctx, "CosignTag", subjectAttribute(s), tracing.WithAttribute("referrers.tag_suffix", kind.Suffix))
}

func endCosign(span *tracing.Span, answers []outcome.Answer) {
	// Where a host had the tag, those before it missed nothing.
	status := labels.Present
	if len(answers) == 0 || answers[len(answers)-1].Status != labels.Present {
		status = ""
		for _, a := range answers {
			status = status.Worse(a.Status)
		}
	}
	span.SetAttributes(tracing.Attribute("referrers.status", string(status)))
	var err error
	if status == labels.Unknown {
		err = unknown(answers)
	}
	endSpan(span, err)
}

// takeSpan starts the span of a referrer: of its manifest and all that it names.
func (g *Gather) takeSpan(a *attempt) *tracing.Span {
	_, span := startSpan(g.ctx, "Take", subjectAttribute(a.subject),
		tracing.WithAttribute("referrers.digest", outcome.Shorten(a.Digest.String())))
	return span
}

// endTake ends it. A referrer that was dropped has not failed.
func endTake(span *tracing.Span, m *artifact.Manifest, err error) {
	if m != nil {
		span.SetAttributes(tracing.Attribute("referrers.set", artifact.SetOf(m.Referrer())))
	}
	var drop dropped
	if errors.As(err, &drop) {
		span.SetAttributes(tracing.Attribute("referrers.left", outcome.Shorten(drop.reason)))
		err = nil
	}
	endSpan(span, err)
}

func subjectAttribute(s *subject) tracing.SpanOpt {
	return tracing.WithAttribute("referrers.subject", outcome.Shorten(s.desc.Digest.String()))
}

// unknown is an error that says why it is not known what hosts have.
func unknown(answers []outcome.Answer) error {
	var parts []string
	for _, a := range answers {
		if a.Status == labels.Unknown {
			parts = append(parts, a.String())
		}
	}
	return errors.New(strings.Join(parts, "; "))
}
