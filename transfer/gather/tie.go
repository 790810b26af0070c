package gather

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// Tie ties what came to its subjects and marks what is known of each. out is what Wait
// returned. Where containerd converted the image's root manifest while it pulled, as it
// does with a fault of old registries, the referrers of the root are tied to the new one
// as well, which target is. The error is of the store.
func (g *Gather) Tie(ctx context.Context, out *outcome.Outcome, target ocispec.Descriptor) error {
	now := time.Now()
	var errs []error
	for i, s := range out.Subjects {
		asked := &g.bySubj[s.Digest].asked
		errs = append(errs, g.tie(ctx, s, asked, now))
		if i == 0 && s.Digest != target.Digest {
			s.Digest = target.Digest
			errs = append(errs, g.tie(ctx, s, asked, now))
		}
	}
	return errors.Join(errs...)
}

func (g *Gather) tie(ctx context.Context, s outcome.Subject, asked *inquiry, now time.Time) error {
	var digests []digest.Digest
	for _, t := range s.Taken {
		digests = append(digests, t.Digest)
	}
	return g.config.Labeler.Tie(ctx, s.Digest, digests, func(existing map[string]string) map[string]string {
		add := labels.Checkmark(s.Status, now)
		maps.Copy(add, g.refresh(ctx, s, asked, existing, now))
		return add
	})
}
