package integration

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// pushArtifact puts a referrer whose manifest and blobs are the test's own.
func pushArtifact(t *testing.T, reg *registry.Registry, m ocispec.Manifest, blobs ...string) (ocispec.Descriptor, []digest.Digest) {
	t.Helper()
	var content []digest.Digest
	for _, blob := range blobs {
		dgst, err := reg.PushBlob(testContext(t), "app", []byte(blob))
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, dgst)
	}
	m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	desc := put(t, reg, "", ocispec.MediaTypeImageManifest, m)
	desc.ArtifactType = m.ArtifactType
	return desc, append(content, desc.Digest)
}

func described(mediaType, blob string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(blob), Size: int64(len(blob))}
}

// Inline data that is not the content, in the listing and in the manifest,
// is neither stored nor does it keep the content out.
func TestInlineDataThatLiesIsNotStored(t *testing.T) {
	reg := startRegistry(t, registry.Olareg)
	image := pushSmall(t, reg, "app", "v1", "image")
	const honest, forged = "the honest sbom", "a forged sbom!!"
	layer := described("application/spdx+json", honest)
	layer.Data = []byte(forged)
	sbom, content := pushArtifact(t, reg, ocispec.Manifest{
		ArtifactType: "application/spdx+json", Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{layer},
		Subject: &ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size},
	}, honest, string(ocispec.DescriptorEmptyJSON.Data))
	listed := sbom
	listed.Data = []byte(strings.Repeat("x", int(sbom.Size)))
	listing, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{listed}})
	if err != nil {
		t.Fatal(err)
	}
	reg.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/referrers/"+image.Digest.String()) {
			return false
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		_, _ = w.Write(listing)
		return true
	})
	d := startDaemon(t, active(everything))
	ref := reg.Host + "/app:v1"
	pull(t, d, ref)
	collect(t, d)
	if lost := damaged(t, d, content); len(lost) > 0 {
		t.Errorf("not stored, or not with its own bytes: %v", lost)
	}
	if slices.Contains(contents(t, d), digest.FromString(forged)) {
		t.Error("the forged content is stored")
	}
	if read := ls(t, d, ref); read.Status != labels.Present || len(read.Referrers) != 1 {
		t.Errorf("status %s, %d referrers", read.Status, len(read.Referrers))
	}
	wantClean(t, d)
}

// A referrer that looks like an image, config and layers, is stored and
// never unpacked, nor does it get a record of an image.
func TestReferrerThatLooksLikeAnImageIsNotUnpacked(t *testing.T) {
	reg := startRegistry(t, registry.Olareg)
	image := pushSmall(t, reg, "app", "v1", "image")
	const layer = "no tar, which would fail to unpack"
	config := `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["` + digest.FromString(layer).String() + `"]}}`
	_, content := pushArtifact(t, reg, ocispec.Manifest{
		ArtifactType: "application/vnd.example.image", Config: described(ocispec.MediaTypeImageConfig, config),
		Layers:  []ocispec.Descriptor{described(ocispec.MediaTypeImageLayer, layer)},
		Subject: &ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size},
	}, config, layer)
	d := startDaemon(t, active(everything))
	ref := reg.Host + "/app:v1"
	for range 2 {
		pull(t, d, ref)
		collect(t, d)
	}
	if lost := damaged(t, d, content); len(lost) > 0 {
		t.Errorf("not stored: %v", lost)
	}
	count := 0
	err := d.Client.SnapshotService("").Walk(testContext(t), func(ctx context.Context, _ snapshots.Info) error {
		count++
		return ctx.Err()
	})
	if err != nil || count != 1 {
		t.Errorf("%d snapshots, want that of the image alone: %v", count, err)
	}
	records, err := d.Client.ImageService().List(testContext(t))
	if err != nil || len(records) != 1 {
		t.Errorf("%d image records, want 1: %v", len(records), err)
	}
}
