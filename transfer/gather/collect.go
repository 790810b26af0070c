package gather

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// Status returns what is known so far of the referrers of a subject, and why no more; unknown
// for one that Image was not called with.
func (g *Gather) Status(dgst digest.Digest) (status labels.Status, why string) {
	g.mu.Lock()
	s := g.bySubj[dgst]
	g.mu.Unlock()
	if s == nil {
		return labels.Unknown, "it was not asked about"
	}
	return s.state()
}

// ImageSubjects returns those that belong to the image.
func (g *Gather) ImageSubjects() []ocispec.Descriptor {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []ocispec.Descriptor
	for _, s := range g.subjects {
		if s.image.Load() {
			out = append(out, s.desc)
		}
	}
	return out
}

// collect builds the outcome when all work has ended.
func (g *Gather) collect() *outcome.Outcome {
	out := &outcome.Outcome{Bytes: g.written.Load(), Unasked: int(g.unasked.Load())}
	for _, s := range g.subjects {
		// Where a tag of cosign's, or an index, turns out to name a part of the
		// image, which came later, labels would run in circles.
		s.taken = slices.DeleteFunc(s.taken, func(r outcome.Referrer) bool { return r.Via != outcome.Listed && g.isImage(r.Digest) })
		// One that a later entry of the listing contradicted was skipped first, and then taken.
		s.skipped = slices.DeleteFunc(s.skipped, func(r outcome.Referrer) bool {
			return r.Status == "" && slices.ContainsFunc(s.taken, func(t outcome.Referrer) bool { return t.Via == r.Via && t.Digest == r.Digest })
		})
		slices.SortFunc(s.taken, func(a, b outcome.Referrer) int { return cmp.Compare(a.Digest, b.Digest) })
		subject := outcome.Subject{
			Digest: s.desc.Digest, MediaType: s.desc.MediaType, Size: s.desc.Size, Image: s.image.Load(), Parents: s.parents,
			Status: s.status, Answers: s.answers, Taken: s.taken, Skipped: s.skipped, Why: s.why(),
		}
		if s.forgotten > 0 {
			subject.Skipped = append(subject.Skipped, outcome.Referrer{Reason: fmt.Sprintf("%d more were not taken; one pull tells of as many as fit into %d MiB", s.forgotten, maxRemembered>>20)})
		}
		out.Subjects = append(out.Subjects, subject)
	}
	if out.Unasked > 0 && len(out.Subjects) > 0 { // so that what is stored of the image tells
		root := &out.Subjects[0]
		root.Status = root.Status.Worse(labels.Truncated)
	}
	return out
}
