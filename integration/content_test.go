package integration

import (
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// referrerContent reads everything that the image's stored referrers name, and
// fails where it cannot be read or is not what its digest says.
func referrerContent(t *testing.T, d *daemon.Daemon, namespace, image string) map[digest.Digest]string {
	t.Helper()
	ctx := namespaces.WithNamespace(testContext(t), namespace)
	store := d.Client.ContentStore()
	out := map[digest.Digest]string{}
	add := func(desc ocispec.Descriptor) {
		data, err := content.ReadBlob(ctx, store, desc)
		if err != nil || desc.Digest.Algorithm().FromBytes(data) != desc.Digest {
			t.Errorf("namespace %s: %s cannot be read: %v", namespace, desc.Digest, err)
		}
		out[desc.Digest] = string(data)
	}
	var walk func(rs []stored.Referrer)
	walk = func(rs []stored.Referrer) {
		for _, r := range rs {
			add(r.Descriptor())
			m, err := stored.Manifest(ctx, store, r.Descriptor())
			if err != nil {
				t.Error(err)
				continue
			}
			for _, b := range m.Blobs {
				add(b)
			}
			walk(r.Referrers)
		}
	}
	img, err := d.Client.ImageService().Get(ctx, image)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := stored.Read(ctx, store, img)
	if err != nil {
		t.Fatal(err)
	}
	walk(tree.Referrers)
	return out
}
