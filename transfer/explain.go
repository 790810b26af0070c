package transfer

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/transfer"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
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
	q, err := t.newQuery(ctx, src, nil)
	if err != nil {
		return err
	}
	defer q.close()
	ctx = registry.WithRecorder(ctx, &q.recorder)

	name, root, err := q.resolve(ctx)
	if err != nil {
		return fmt.Errorf("failed to resolve image: %w", err)
	}
	if err := q.governGather(ctx, name, root, gather.Config{Dry: true}); err != nil {
		return err
	}
	manifests, err := q.addManifests(ctx, root, orDefault(dst.Platforms()), nil)
	if err != nil {
		return err
	}
	if manifests.manifests == 0 {
		return manifests.noneFor(orDefault(dst.Platforms()), q.name)
	}
	if q.gather == nil { // nothing is taken, so that nothing is asked
		return dst.Send(q.explanation(ctx, root.Digest, nil, nil))
	}
	out := q.gather.Wait(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if q.judged, err = q.verdict(ctx, out); err != nil {
		return err
	}
	return dst.Send(q.explanation(ctx, root.Digest, out, manifests.platformOf))
}
