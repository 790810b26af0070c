package transfer

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/transfer"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
)

// explain does what a pull does, but for the image, and stores nothing.
func (t *Transferrer) explain(ctx context.Context, src transfer.ImageFetcher, dst *explain.Destination) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, release, err := t.withLease(ctx)
	if err != nil {
		return err
	}
	defer release()
	p, err := t.newPull(ctx, src, nil)
	if err != nil {
		return err
	}
	defer p.close()
	p.dry = true

	name, root, err := p.resolve(ctx)
	if err != nil {
		return fmt.Errorf("failed to resolve image: %w", err)
	}
	if err := p.start(ctx, name, root); err != nil {
		return err
	}
	told, err := p.tellManifests(ctx, root, orDefault(dst.Platforms()), nil)
	if err != nil {
		return err
	}
	if told.manifests == 0 {
		return told.noneFor(orDefault(dst.Platforms()), p.name)
	}
	if p.gather == nil { // nothing is taken, so that nothing is asked
		return dst.Send(p.explanation(ctx, root.Digest, nil, nil))
	}
	outcome := p.gather.Wait(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return dst.Send(p.explanation(ctx, root.Digest, outcome, told.platformOf))
}
