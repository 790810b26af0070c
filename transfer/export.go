package transfer

import (
	"context"

	"github.com/containerd/containerd/v2/core/transfer"

	"github.com/transfer-referrers/transfer-referrers/transfer/archive"
)

// export lets the wrapped service export images, with their referrers unless the operator
// leaves them out.
func (t *Transferrer) export(ctx context.Context, src transfer.ImageGetter, dst *archive.Stream, opts ...transfer.Opt) error {
	if t.config.Export {
		dst = dst.WithReferrers()
	}
	return t.config.Local.Transfer(ctx, src, dst, opts...)
}
