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

// report tells the operator of referrers that are in, or given up: one line with the
// outcome, and the metrics. It returns what the pull ends with unless more happens.
// refused is why a rule refuses the pull, or nil.
func (q *query) report(ctx context.Context, out *outcome.Outcome, waited time.Duration, refused error) metrics.Ending {
	q.t.config.Metrics.Gathered(out, waited)
	status := out.Status()
	ends := metrics.Ending(status)
	if refused != nil {
		ends = metrics.Refused
	}
	q.logSubjects(ctx, out)

	fields := log.Fields{
		"image":     q.name,
		"digest":    q.root,
		"selection": q.selection.RuleName(),
		"outcome":   ends,
		"status":    status,
		"bytes":     out.Bytes,
		"waited":    waited.Round(time.Millisecond).String(),
		"subjects":  len(out.Subjects),
	}
	for _, s := range labels.Statuses {
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
	log.G(ctx).WithFields(fields).Info("referrers: gathered")
	if refused != nil {
		q.logRefusal(ctx, refused)
	}
	return ends
}

// logRefusal tells the operator why a rule refuses an image, in full.
func (q *query) logRefusal(ctx context.Context, refused error) {
	log.G(ctx).WithFields(log.Fields{
		"image": q.name, "digest": q.root, "rule": q.selection.RuleName(), "reason": refused.Error(),
	}).Warn("referrers: image refused")
}

// logSubjects writes a line for every subject of the image that is not known in
// full.
func (q *query) logSubjects(ctx context.Context, out *outcome.Outcome) {
	for _, s := range out.Subjects {
		if !s.Status.Incomplete() {
			continue
		}
		level := log.DebugLevel // of a hundred referrers' referrers
		if s.Image {
			level = log.WarnLevel
		}
		log.G(ctx).WithField("image", q.name).WithField("subject", s.Digest).WithField("status", s.Status).
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
