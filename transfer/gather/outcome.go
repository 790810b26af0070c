package gather

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// Outcome is what a pull learnt of its referrers.
type Outcome struct {
	Subjects []Subject
	// Bytes are those of the manifests and blobs that were written to the
	// store; what was there already does not count.
	Bytes int64
	// TimedOut says that the limit of time ended the gather.
	TimedOut bool
	// Unasked is how many manifests of the image were not asked about, as one
	// pull has a limit of subjects.
	Unasked int
}

// Subject is what is known of one subject.
type Subject struct {
	ocispec.Descriptor
	// Image says that the subject belongs to the image itself, rather than
	// to a referrer of it.
	Image   bool
	Status  discovery.Status
	Answers []discovery.Answer
	Taken   []Taken
	Left    []Left
	// Why says in one line how the status came about.
	Why string

	known known
}

// Taken is a referrer that is whole in the store. Its artifact type and
// annotations are those of its manifest.
type Taken struct {
	ocispec.Descriptor
	// Reason is the rule and pattern by which it was taken.
	Reason string
	cosign bool
}

// Left is a referrer that was not taken, or a request that failed (then without
// a digest).
type Left struct {
	Digest       digest.Digest
	ArtifactType string
	Reason       string
	// Status is what it made of the subject's: unknown, truncated, or "" for
	// what does not matter to it.
	Status discovery.Status
	// Limit is the limit that refused it, "" where none did.
	Limit Limit
}

func (l Left) String() string {
	if l.Digest == "" {
		return l.Reason
	}
	return fmt.Sprintf("%s: %s", l.Digest, l.Reason)
}

// Doubts says in a line each what made the status unknown or truncated: answers of
// hosts, and referrers that could not be taken. Why has all the rest as well.
func (s Subject) Doubts() []string {
	doubt := func(status discovery.Status) bool {
		return status == discovery.Unknown || status == discovery.Truncated
	}
	var out []string
	for _, a := range s.Answers {
		if doubt(a.Status) {
			out = append(out, a.String())
		}
	}
	for _, l := range s.Left {
		if doubt(l.Status) {
			out = append(out, l.String())
		}
	}
	return out
}

// settle builds the outcome.
func (g *Gather) settle() *Outcome {
	out := &Outcome{Bytes: g.written.Load(), Unasked: int(g.unasked.Load())}
	for _, s := range g.subjects {
		// Where a tag of cosign's turns out to name a part of the image, which
		// came later, labels would run in circles.
		s.taken = slices.DeleteFunc(s.taken, func(t Taken) bool { return t.cosign && g.isImage(t.Digest) })
		slices.SortFunc(s.taken, func(a, b Taken) int { return cmp.Compare(a.Digest, b.Digest) })
		subject := Subject{
			Descriptor: s.desc, Image: s.image.Load(), Status: s.status,
			Answers: s.answers, Taken: s.taken, Left: s.left, Why: s.why(), known: s.known,
		}
		if s.untold > 0 {
			subject.Left = append(subject.Left, Left{Reason: fmt.Sprintf("%d more were not taken; one pull tells of %d", s.untold, maxTold)})
		}
		out.Subjects = append(out.Subjects, subject)
	}
	return out
}

// Tie ties what came to its subjects and marks what is known of each. Where
// containerd converted the image's root manifest while it pulled, as it does with
// a fault of old registries, the referrers of the root are tied to the new one as
// well, which target is. The error is of the store.
func (g *Gather) Tie(ctx context.Context, out *Outcome, target ocispec.Descriptor) error {
	now := time.Now()
	var errs []error
	for i, s := range out.Subjects {
		errs = append(errs, g.tie(ctx, s, now))
		if i == 0 && s.Digest != target.Digest {
			s.Descriptor = target
			errs = append(errs, g.tie(ctx, s, now))
		}
	}
	return errors.Join(errs...)
}

func (g *Gather) tie(ctx context.Context, s Subject, now time.Time) error {
	var digests []digest.Digest
	for _, t := range s.Taken {
		digests = append(digests, t.Digest)
	}
	return stored.Tie(ctx, g.Store, s.Digest, digests, func(existing map[string]string) map[string]string {
		add := labels.Checkmark(string(s.Status), now)
		maps.Copy(add, g.refresh(ctx, s, existing, now))
		return add
	})
}

// Enforce says whether the pull may succeed under the selection: what is required
// must have been found on the image's index, or on each of its manifests that were
// pulled, and where the rule says so nothing may be unknown. The error is
// errdefs.ErrFailedPrecondition and names what is missing and why.
func (o *Outcome) Enforce(image string, sel *policy.Selection) error {
	var unknown, why []string
	for _, s := range o.Subjects {
		if s.Status == discovery.Unknown {
			unknown = append(unknown, fmt.Sprintf("%s: %s", s.Digest, s.Why))
		}
		if s.Image {
			why = append(why, fmt.Sprintf("%s: %s", s.Digest, s.Why))
		}
	}
	why, unknown = atMost(why), atMost(unknown)
	if missing := o.missing(sel); len(missing) > 0 {
		return fmt.Errorf("image %s lacks referrers that %s requires: %s (%s): %w",
			image, sel.Origin(), strings.Join(missing, ", "), strings.Join(why, " | "), errdefs.ErrFailedPrecondition)
	}
	if sel.OnError() == policy.Fail && len(unknown) > 0 {
		return fmt.Errorf("the referrers of image %s could not be learnt, and %s has on_error = \"fail\" (%s): %w",
			image, sel.Origin(), strings.Join(unknown, " | "), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// missing returns what is required and was found neither on an index of the image
// nor on one of its manifests: a signature for one platform says nothing of another.
func (o *Outcome) missing(sel *policy.Selection) []string {
	var onIndex []policy.Referrer
	manifests := 0
	for _, s := range o.Subjects {
		if s.Image && images.IsIndexType(s.MediaType) {
			onIndex = append(onIndex, s.found()...)
		} else if s.Image {
			manifests++
		}
	}
	if manifests == 0 {
		return sel.Missing(onIndex)
	}
	var missing []string
	for _, s := range o.Subjects {
		if !s.Image || images.IsIndexType(s.MediaType) {
			continue
		}
		for _, m := range sel.Missing(append(s.found(), onIndex...)) {
			if manifests > 1 {
				m += " of " + s.Digest.String()
			}
			missing = append(missing, m)
		}
	}
	return atMost(missing)
}

func (s Subject) found() []policy.Referrer {
	var out []policy.Referrer
	for _, t := range s.Taken {
		out = append(out, policy.Referrer{ArtifactType: t.ArtifactType, Annotations: t.Annotations})
	}
	return out
}

// atMost keeps a message from growing with a hostile image's manifests.
func atMost(reasons []string) []string {
	const most = 8
	if len(reasons) > most {
		reasons = append(reasons[:most:most], fmt.Sprintf("and %d more", len(reasons)-most))
	}
	return reasons
}
