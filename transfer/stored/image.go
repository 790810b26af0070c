package stored

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

const (
	// MaxImageNesting is how deep the indexes within an image's own may lie. One
	// is seen where an index of variants holds indexes of platforms.
	MaxImageNesting = 8
	// MaxImageManifests is how many manifests and indexes those of one image may
	// name in all.
	MaxImageManifests = 10_000
)

// WalkImage goes down an image from its root. The handler is called once with each
// descriptor, an index before what lies in it, and returns where to go on, as for
// containerd's images.Walk; unlike that it ends at what no honest image needs. Its
// errors name the index. They are errdefs.ErrResourceExhausted where that is too deep
// or names too much.
func WalkImage(ctx context.Context, root ocispec.Descriptor, handler images.HandlerFunc) error {
	w := &imageWalk{handler: handler, seen: map[digest.Digest]bool{}}
	return w.down(ctx, root, 0)
}

type imageWalk struct {
	handler images.HandlerFunc
	seen    map[digest.Digest]bool
	named   int
}

func (w *imageWalk) down(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if w.seen[desc.Digest] {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w.seen[desc.Digest] = true
	if depth > MaxImageNesting && artifact.IsIndex(desc.MediaType) {
		return fmt.Errorf("index %s lies deeper in the image than the limit of %d: %w", desc.Digest, MaxImageNesting, errdefs.ErrResourceExhausted)
	}
	children, err := w.handler(ctx, desc)
	if err != nil {
		return fmt.Errorf("index %s: %w", desc.Digest, err)
	}
	if w.named += len(children); w.named > MaxImageManifests {
		return fmt.Errorf("index %s takes the image over the limit of %d manifests: %w", desc.Digest, MaxImageManifests, errdefs.ErrResourceExhausted)
	}
	for _, child := range children {
		if err := w.down(ctx, child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// subjectsOf returns the image's root and all that it and the indexes within it name,
// each index before what lies in it.
func subjectsOf(ctx context.Context, store Store, root ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	err := WalkImage(ctx, root, func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		out = append(out, desc)
		if !artifact.IsIndex(desc.MediaType) {
			return nil, nil
		}
		if _, err := store.Info(ctx, desc.Digest); errdefs.IsNotFound(err) && len(out) > 1 {
			return nil, nil // of a platform that was not pulled
		}
		return ImageManifests(ctx, store, desc)
	})
	return out, err
}

// ImageManifests returns what a stored index of an image names.
func ImageManifests(ctx context.Context, store Store, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	data, err := ReadManifest(ctx, store, desc)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	var out []ocispec.Descriptor
	for _, m := range index.Manifests {
		if m.Digest.Validate() == nil {
			out = append(out, m)
		}
	}
	return out, nil
}

// ConfigOf returns the digest of the config of an image's manifest that is stored, "" where it
// cannot be read.
func ConfigOf(ctx context.Context, store Store, manifest ocispec.Descriptor) digest.Digest {
	data, err := ReadManifest(ctx, store, manifest)
	if err != nil {
		return ""
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return ""
	}
	return m.Config.Digest
}
