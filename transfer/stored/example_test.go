package stored_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// What is stored with an image is found by its manifest's descriptor, in a daemon's
// store (client.ContentStore()) as in this one on disk.
func ExampleReferrers() {
	ctx := namespaces.WithNamespace(context.Background(), "default")
	store, done, err := open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer done()
	put := func(mediaType, data string) ocispec.Descriptor {
		desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(data), Size: int64(len(data))}
		if err := content.WriteBlob(ctx, store, desc.Digest.String(), strings.NewReader(data), desc); err != nil {
			fmt.Println(err)
		}
		return desc
	}
	put(ocispec.MediaTypeEmptyJSON, "{}")
	image := put(ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"layers":[]}`)
	sbom := put(ocispec.MediaTypeImageManifest, fmt.Sprintf(
		`{"schemaVersion":2,"artifactType":"application/spdx+json","config":{"mediaType":%q,"digest":%q,"size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		ocispec.MediaTypeEmptyJSON, ocispec.DescriptorEmptyJSON.Digest, image.MediaType, image.Digest, image.Size))
	if err := stored.NewLabeler(store).Tie(ctx, image.Digest, sbom.Digest); err != nil { // as a pull does
		fmt.Println(err)
		return
	}

	referrers, err := stored.Referrers(ctx, store, image)
	for _, r := range referrers {
		fmt.Println(r.ArtifactType, r.Digest == sbom.Digest)
	}
	fmt.Println(err)
	// Output:
	// application/spdx+json true
	// <nil>
}

// open makes a content store in a temporary directory.
func open() (content.Store, func(), error) {
	dir, err := os.MkdirTemp("", "stored-")
	if err != nil {
		return nil, nil, err
	}
	blobs, err := local.NewStore(dir)
	if err != nil {
		return nil, nil, err
	}
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	if err != nil {
		return nil, nil, err
	}
	m := metadata.NewDB(db, blobs, nil)
	return m.ContentStore(), func() {
		_ = db.Close()
		_ = os.RemoveAll(dir)
	}, m.Init(context.Background())
}
