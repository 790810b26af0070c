package transfer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/log"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/metrics"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// report tells the operator of a pull whose referrers are in, or given up: one line
// with the outcome, the metrics, and what the pull ends with unless more happens.
// refused is why a rule refuses the pull, or nil.
func (p *pull) report(ctx context.Context, out *outcome.Outcome, waited time.Duration, refused error) {
	p.t.config.Metrics.Gathered(out, waited)
	status := out.Status()
	p.outcome = metrics.Outcome(status)
	if refused != nil {
		p.outcome = metrics.Refused
	}
	p.logSubjects(ctx, out)

	fields := log.Fields{
		"image":     p.name,
		"digest":    p.root,
		"selection": p.selection.Origin(),
		"outcome":   p.outcome,
		"status":    status,
		"bytes":     out.Bytes,
		"waited":    waited.Round(time.Millisecond).String(),
		"subjects":  len(out.Subjects),
	}
	for _, s := range []labels.Status{labels.Present, labels.Absent, labels.Unknown, labels.Truncated} {
		fields[string(s)] = 0
	}
	taken := 0
	var why []string
	for _, s := range out.Subjects {
		taken += len(s.Taken)
		fields[string(s.Status)] = fields[string(s.Status)].(int) + 1
		if s.Image && s.Status.Incomplete() {
			why = append(why, firstDoubt(s))
		}
	}
	fields["taken"] = taken
	if len(why) > 0 {
		fields["why"] = outcome.Shorten(strings.Join(slices.Compact(why), " | "))
	}
	if limits := out.Refusals(); len(limits) > 0 {
		fields["limits"] = limitCounts(limits)
	}
	if refused != nil {
		fields["refused"] = outcome.Shorten(refused.Error())
	}
	log.G(ctx).WithFields(fields).Info("referrers: gathered")
}

// logSubjects writes a line for every subject of the image that is not known in
// full.
func (p *pull) logSubjects(ctx context.Context, out *outcome.Outcome) {
	for _, s := range out.Subjects {
		if !s.Status.Incomplete() {
			continue
		}
		level := log.DebugLevel // of a hundred referrers' referrers
		if s.Image {
			level = log.WarnLevel
		}
		log.G(ctx).WithField("image", p.name).WithField("subject", s.Digest).WithField("status", s.Status).
			Logf(level, "referrers: %s", s.Why)
	}
}

// firstDoubt says in short why a subject is not known in full.
func firstDoubt(s outcome.Subject) string {
	doubts := s.Doubts()
	switch len(doubts) {
	case 0:
		return s.Why
	case 1:
		return doubts[0]
	}
	return fmt.Sprintf("%s, and %d more", doubts[0], len(doubts)-1)
}

// limitCounts writes "max_blob_size=2 timeout=1".
func limitCounts(limits map[outcome.Limit]int) string {
	var parts []string
	for _, l := range slices.Sorted(maps.Keys(limits)) {
		parts = append(parts, fmt.Sprintf("%s=%d", l, limits[l]))
	}
	return strings.Join(parts, " ")
}

// ended is what became of a pull that returns err.
func (p *pull) ended(err error) metrics.Outcome {
	switch {
	case p.outcome == metrics.Refused:
		return metrics.Refused
	case err != nil:
		return metrics.Failed
	case p.outcome == "":
		return metrics.Unselected
	}
	return p.outcome
}
