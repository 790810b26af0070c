package outcome

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Enforce reports whether the pull may succeed under the selection: what is required
// must have been found on each of the image's manifests that were pulled, or on an
// index that holds it, and where the rule says so nothing may be unknown. The error is
// errdefs.ErrFailedPrecondition and names what is missing and why.
func (o *Outcome) Enforce(image string, sel *policy.Selection) error {
	if missing := o.missing(sel); len(missing) > 0 {
		return fmt.Errorf("image %s lacks referrers that %s requires: %s (%s): %w",
			image, sel.RuleName(), strings.Join(missing, ", "), strings.Join(o.whyMissing(sel), " | "), errdefs.ErrFailedPrecondition)
	}
	if unknown := o.unknown(); sel.OnError() == policy.Fail && len(unknown) > 0 {
		return fmt.Errorf("the referrers of image %s could not be learnt, and %s has on_error = \"fail\" (%s): %w",
			image, sel.RuleName(), strings.Join(unknown, " | "), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// missing returns what is required and was found neither on a manifest of the image
// nor on an index above it: a signature for one platform says nothing of another, and
// that of an index nothing of what lies beside it.
func (o *Outcome) missing(sel *policy.Selection) []string {
	bySubject := map[digest.Digest]Subject{}
	manifests := 0
	for _, s := range o.Subjects {
		bySubject[s.Digest] = s
		if s.Image && !artifact.IsIndex(s.MediaType) {
			manifests++
		}
	}
	var missing []string
	for i, s := range o.Subjects {
		root := i == 0
		// An index counts only where no manifest below it does.
		alone := root && manifests == 0
		if !s.Image || artifact.IsIndex(s.MediaType) && !alone {
			continue
		}
		for _, m := range sel.Missing(withParents(s, bySubject)) {
			if manifests > 1 {
				m += " of " + s.Digest.String()
			}
			missing = append(missing, m)
		}
	}
	if o.Unasked > 0 && len(o.Subjects) > 0 { // all of them lie below the root
		for _, m := range sel.Missing(Artifacts(o.Subjects[0].Taken)) {
			missing = append(missing, fmt.Sprintf("%s of %s", m, o.unaskedText()))
		}
	}
	return atMost(missing)
}

// withParents returns what was taken for a subject and for the indexes above it.
func withParents(s Subject, bySubject map[digest.Digest]Subject) []artifact.Referrer {
	var found []artifact.Referrer
	seen := map[digest.Digest]bool{}
	for above := []Subject{s}; len(above) > 0; above = above[1:] {
		if seen[above[0].Digest] {
			continue
		}
		seen[above[0].Digest] = true
		found = append(found, Artifacts(above[0].Taken)...)
		for _, parent := range above[0].Parents {
			if p, ok := bySubject[parent]; ok && p.Image {
				above = append(above, p)
			}
		}
	}
	return found
}

// whyMissing says of each of the image's subjects what is known of its referrers, and why
// those that seem to be what is required do not count.
func (o *Outcome) whyMissing(sel *policy.Selection) []string {
	var out []string
	for _, s := range o.Subjects {
		if !s.Image {
			continue
		}
		var uncounted []string
		for _, t := range s.Taken {
			if why := sel.Uncounted(t.Artifact()); why != "" {
				uncounted = append(uncounted, fmt.Sprintf("; %s does not count: %s", t.Digest, why))
			}
		}
		out = append(out, fmt.Sprintf("%s: %s%s", s.Digest, s.Why, strings.Join(atMost(uncounted), "")))
	}
	return atMost(out)
}

func (o *Outcome) unknown() []string {
	var out []string
	for _, s := range o.Subjects {
		if s.Status == labels.Unknown {
			out = append(out, fmt.Sprintf("%s: %s", s.Digest, s.Why))
		}
	}
	if o.Unasked > 0 {
		out = append(out, o.unaskedText())
	}
	return atMost(out)
}

func (o *Outcome) unaskedText() string {
	return fmt.Sprintf("%d manifests that were not asked about, over the limit of %d subjects a pull", o.Unasked, MaxSubjects)
}

// atMost keeps a message from growing with a hostile image's manifests.
func atMost(reasons []string) []string {
	const most = 8
	if len(reasons) > most {
		reasons = append(reasons[:most:most], fmt.Sprintf("and %d more", len(reasons)-most))
	}
	return reasons
}
