package gather

import (
	"context"
	"maps"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// Tie ties what came to its subjects and marks what is known of each. out is what Wait
// returned. Where containerd converted the image's root manifest while it pulled, as it
// does with a fault of old registries, the referrers of the root are tied to the new one
// as well, which target is. The error is of the store.
func (g *Gather) Tie(ctx context.Context, out *outcome.Outcome, target ocispec.Descriptor) error {
	now := time.Now()
	var all []stored.Tying
	for i, s := range out.Subjects {
		asked := &g.bySubj[s.Digest].asked
		all = append(all, g.tying(s, asked, now))
		if i == 0 && s.Digest != target.Digest {
			s.Digest = target.Digest
			all = append(all, g.tying(s, asked, now))
		}
	}
	return g.config.Labeler.TieAll(ctx, all)
}

func (g *Gather) tying(s outcome.Subject, asked *inquiry, now time.Time) stored.Tying {
	t := stored.Tying{Subject: s.Digest}
	for _, r := range s.Taken {
		t.Referrers = append(t.Referrers, r.Digest)
	}
	t.More = func(ctx context.Context, existing map[string]string) map[string]string {
		add := labels.Checkmark(s.Status, now)
		add[labels.AskedKey] = g.source.locator
		maps.Copy(add, g.refresh(ctx, s, asked, existing, now))
		set := labels.TieLabels(existing, t.Referrers...)
		maps.Copy(set, add)
		g.changes = append(g.changes, changesOf(s.Digest, existing, set, g.source.locator)...)
		return add
	}
	return t
}
