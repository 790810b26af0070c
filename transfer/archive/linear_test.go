package archive

import (
	"context"
	"fmt"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// counting counts what is read of a store.
type counting struct {
	content.Store
	reads int
}

func (c *counting) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	c.reads++
	return c.Store.Info(ctx, dgst)
}

func (c *counting) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	c.reads++
	return c.Store.ReaderAt(ctx, desc)
}

// readsOfShared restores n referrers that share an index of n manifests, and keeps them.
func readsOfShared(t *testing.T, n int) (restored, kept int) {
	s := newShelf(t)
	image := s.artifact("image", nil)
	var manifests, referrers []ocispec.Descriptor
	for i := range n {
		manifests = append(manifests, s.artifact(fmt.Sprint("part", i), nil))
	}
	shared := s.index(nil, manifests...)
	for i := range n {
		r := s.putJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
			MediaType: ocispec.MediaTypeImageIndex, ArtifactType: fmt.Sprint("text/", i), Manifests: []ocispec.Descriptor{shared}, Subject: &image,
		})
		referrers = append(referrers, carried(r, image))
	}
	c := &counting{Store: s.store}
	if got, err := Restore(s.ctx, c, stored.NewLabeler(c), []digest.Digest{image.Digest}, referrers); err != nil || got != n {
		t.Fatalf("restored %d, want %d: %v", got, n, err)
	}
	restored, c.reads = c.reads, 0
	if err := KeepEntries(s.ctx, c, stored.NewLabeler(c), shared.Digest, referrers); err != nil {
		t.Fatal(err)
	}
	return restored, c.reads
}

// Referrers that share an index have it read once, and not once for each of them.
func TestSharedContentIsReadOnce(t *testing.T) {
	restored, kept := readsOfShared(t, 20)
	restored4, kept4 := readsOfShared(t, 80)
	if restored4 > 5*restored || kept4 > 5*kept {
		t.Errorf("four times as much makes %d reads of %d, and %d of %d", restored4, restored, kept4, kept)
	}
}

// A blob of another size than its manifest says is what neither export nor push takes.
func TestRestoreLeavesOutABlobOfAnotherSize(t *testing.T) {
	s := newShelf(t)
	image := s.artifact("image", nil)
	layer := s.put("text/plain", []byte("layer"))
	layer.Size++
	s.restore(0, image, carried(s.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "text/sbom", Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{layer}, Subject: &image,
	}), image))
	s.wantTied(image)
}
