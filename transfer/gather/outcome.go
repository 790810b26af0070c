package gather

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

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
	Image bool
	// Parents are the indexes of the image that name the subject.
	Parents []digest.Digest
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
	// Hollow says that it names no content of its own.
	Hollow bool
	Way    Way
}

// Referrer returns what policy needs to know.
func (t Taken) Referrer() policy.Referrer {
	return policy.Referrer{ArtifactType: t.ArtifactType, Annotations: t.Annotations, Hollow: t.Hollow}
}

func referrers(taken []Taken) []policy.Referrer {
	var out []policy.Referrer
	for _, t := range taken {
		out = append(out, t.Referrer())
	}
	return out
}

// Left is a referrer that was not taken, or a request that failed (then without
// a digest).
type Left struct {
	Digest       digest.Digest
	ArtifactType string
	// Way is how the pull came to know of it, "" for a listing that failed.
	Way    Way
	Reason string
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
		// Where a tag of cosign's, or an index, turns out to name a part of the
		// image, which came later, labels would run in circles.
		s.taken = slices.DeleteFunc(s.taken, func(t Taken) bool { return t.Way != listed && g.isImage(t.Digest) })
		// One that a later entry of the listing contradicted was left first, and then taken.
		s.left = slices.DeleteFunc(s.left, func(l Left) bool {
			return l.Status == "" && slices.ContainsFunc(s.taken, func(t Taken) bool { return t.Way == l.Way && t.Digest == l.Digest })
		})
		slices.SortFunc(s.taken, func(a, b Taken) int { return cmp.Compare(a.Digest, b.Digest) })
		subject := Subject{
			Descriptor: s.desc, Image: s.image.Load(), Parents: s.parents, Status: s.status,
			Answers: s.answers, Taken: s.taken, Left: s.left, Why: s.why(), known: s.known,
		}
		if s.untold > 0 {
			subject.Left = append(subject.Left, Left{Reason: fmt.Sprintf("%d more were not taken; one pull tells of %d", s.untold, maxTold)})
		}
		out.Subjects = append(out.Subjects, subject)
	}
	if out.Unasked > 0 && len(out.Subjects) > 0 { // so that what is stored of the image tells
		root := &out.Subjects[0]
		root.Status = root.Status.Worse(discovery.Truncated)
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
