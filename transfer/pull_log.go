package transfer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/log"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/metrics"
)

// report tells the operator of a pull whose referrers are in, or given up: one line
// with the outcome, the metrics, and what the pull ends with unless more happens.
// refused is why a rule refuses the pull, or nil.
func (p *pull) report(ctx context.Context, outcome *gather.Outcome, waited time.Duration, refused error) {
	p.t.Metrics.Gathered(outcome, waited)
	status := imageStatus(outcome)
	p.outcome = metrics.Outcome(status)
	if refused != nil {
		p.outcome = metrics.Refused
	}
	p.logSubjects(ctx, outcome)

	fields := log.Fields{
		"image":     p.name,
		"digest":    p.root,
		"selection": p.selection.Origin(),
		"outcome":   p.outcome,
		"status":    status,
		"bytes":     outcome.Bytes,
		"waited":    waited.Round(time.Millisecond).String(),
		"subjects":  len(outcome.Subjects),
	}
	for _, s := range []discovery.Status{discovery.Present, discovery.Absent, discovery.Unknown, discovery.Truncated} {
		fields[string(s)] = 0
	}
	taken := 0
	var why []string
	for _, s := range outcome.Subjects {
		taken += len(s.Taken)
		fields[string(s.Status)] = fields[string(s.Status)].(int) + 1
		if s.Image && notWhole(s.Status) {
			why = append(why, firstDoubt(s))
		}
	}
	fields["taken"] = taken
	if len(why) > 0 {
		fields["why"] = discovery.Shorten(strings.Join(slices.Compact(why), " | "))
	}
	if limits := outcome.Refusals(); len(limits) > 0 {
		fields["limits"] = limitCounts(limits)
	}
	if refused != nil {
		fields["refused"] = discovery.Shorten(refused.Error())
	}
	log.G(ctx).WithFields(fields).Info("referrers: gathered")
}

// logSubjects writes a line for every subject of the image that is not known in
// full.
func (p *pull) logSubjects(ctx context.Context, outcome *gather.Outcome) {
	for _, s := range outcome.Subjects {
		if !notWhole(s.Status) {
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
func firstDoubt(s gather.Subject) string {
	doubts := s.Doubts()
	switch len(doubts) {
	case 0:
		return s.Why
	case 1:
		return doubts[0]
	}
	return fmt.Sprintf("%s, and %d more", doubts[0], len(doubts)-1)
}

func notWhole(s discovery.Status) bool { return s == discovery.Unknown || s == discovery.Truncated }

// imageStatus is the worst among the image's own subjects. One with more manifests than
// were asked about is truncated at least.
func imageStatus(outcome *gather.Outcome) discovery.Status {
	status := discovery.Status("")
	if outcome.Unasked > 0 {
		status = discovery.Truncated
	}
	for _, s := range outcome.Subjects {
		if s.Image {
			status = status.Worse(s.Status)
		}
	}
	return status
}

// limitCounts writes "max_blob_size=2 timeout=1".
func limitCounts(limits map[gather.Limit]int) string {
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
