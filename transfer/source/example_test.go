package source_test

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/platforms"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

// A source in place of containerd's OCIRegistry says which referrers the client
// wants of the image that it pulls.
func ExampleNew() {
	const ref = "registry.example.com/prod/app:v1"
	pull := func(ctx context.Context, client transfer.Transferrer) error { // containerd's client is one
		src, err := source.New(ctx, ref,
			source.WithRegistry(registry.WithHostDir("/etc/containerd/certs.d")),
			source.WithSelection(&api.Selection{ArtifactTypes: []string{"signatures", "sboms"}}))
		if err != nil {
			return err
		}
		dst := image.NewStore(ref, image.WithPlatforms(platforms.DefaultSpec()))
		return client.Transfer(ctx, src, dst)
	}
	err := pull(context.Background(), show{})
	fmt.Println(err)
	// Output:
	// OCI Registry (registry.example.com/prod/app:v1) to Local Image Store (registry.example.com/prod/app:v1)
	// <nil>
}

// show prints what would be transferred.
type show struct{}

func (show) Transfer(_ context.Context, src, dst any, _ ...transfer.Opt) error {
	_, err := fmt.Println(src, "to", dst)
	return err
}
