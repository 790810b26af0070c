package explain_test

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/transfer"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

// A daemon that is asked what a pull would take answers with each referrer that it
// would leave, and why.
func ExampleNew() {
	why := func(ctx context.Context, client transfer.Transferrer, ref string) error { // containerd's client is one
		src, err := source.New(ctx, ref)
		if err != nil {
			return err
		}
		dst := explain.New()
		if err := client.Transfer(ctx, src, dst); err != nil {
			return err
		}
		e, err := dst.Explanation(ctx)
		if err != nil {
			return err
		}
		for _, s := range e.Subjects {
			fmt.Println(s.Digest, s.Status)
			for _, r := range s.Skipped {
				fmt.Println("left:", r.ArtifactType, r.Reason)
			}
		}
		return nil
	}
	_ = why
}
