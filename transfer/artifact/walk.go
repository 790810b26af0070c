package artifact

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// MaxNesting is how deep the indexes within a referrer may lie.
	MaxNesting = 2
	// MaxContent is how many manifests and blobs one referrer may name in all.
	MaxContent = 10_000
)

// Visitor is what a walk does with the content of a referrer. Descriptors that it gets
// are plain: media type, digest and size. data is the content that the descriptor
// carries, verified, or nil.
type Visitor struct {
	// Manifest returns a manifest that an index names. Where it returns nil the walk
	// goes no deeper there.
	Manifest func(ctx context.Context, desc ocispec.Descriptor, data []byte) (*Manifest, error)
	// Blob is called with a config, a layer, or an entry of an index that is no
	// manifest. nil passes over them.
	Blob func(ctx context.Context, parent, desc ocispec.Descriptor, data []byte) error
	// Leave is called with each manifest when all that it names has been visited; the
	// root comes last. nil does nothing.
	Leave func(ctx context.Context, desc ocispec.Descriptor, m *Manifest) error
}

// Walk visits all that a referrer names, each digest once, depth first and in the
// order of the manifests. A config and a layer are blobs, whatever media type they
// claim. The walk ends with the first error of the visitor, and with its context.
//
// Indexes that lie deeper than MaxNesting, or more than MaxContent names, are
// errdefs.ErrResourceExhausted. One digest with two sizes is errdefs.ErrInvalidArgument.
func Walk(ctx context.Context, root ocispec.Descriptor, m *Manifest, visit Visitor) error {
	w := walk{visit: visit, seen: map[name]int64{}}
	return w.manifest(ctx, Plain(root), m, 0)
}

type walk struct {
	visit Visitor
	seen  map[name]int64 // with the size of each
	named int
}

// name is a digest in one of its two uses.
type name struct {
	digest   digest.Digest
	manifest bool
}

func (w *walk) manifest(ctx context.Context, desc ocispec.Descriptor, m *Manifest, nesting int) error {
	if len(m.Manifests) > 0 && nesting == MaxNesting {
		return fmt.Errorf("%s: indexes lie more than %d deep: %w", desc.Digest, MaxNesting, errdefs.ErrResourceExhausted)
	}
	for _, blob := range m.Blobs {
		if err := w.blob(ctx, desc, blob); err != nil {
			return err
		}
	}
	for _, entry := range m.Manifests {
		visit := w.blob
		if IsReferrer(entry.MediaType) {
			visit = func(ctx context.Context, _, child ocispec.Descriptor) error { return w.child(ctx, child, nesting+1) }
		}
		if err := visit(ctx, desc, entry); err != nil {
			return err
		}
	}
	if w.visit.Leave == nil {
		return nil
	}
	return w.visit.Leave(ctx, desc, m)
}

// child visits a manifest that an index names, and goes down.
func (w *walk) child(ctx context.Context, desc ocispec.Descriptor, nesting int) error {
	first, err := w.enter(ctx, desc, true)
	if err != nil || !first {
		return err
	}
	m, err := w.visit.Manifest(ctx, Plain(desc), Inline(desc))
	if err != nil || m == nil {
		return err
	}
	return w.manifest(ctx, Plain(desc), m, nesting)
}

func (w *walk) blob(ctx context.Context, parent, desc ocispec.Descriptor) error {
	first, err := w.enter(ctx, desc, false)
	if err != nil || !first || w.visit.Blob == nil {
		return err
	}
	return w.visit.Blob(ctx, parent, Plain(desc), Inline(desc))
}

// enter reports whether the walk meets the content for the first time.
func (w *walk) enter(ctx context.Context, desc ocispec.Descriptor, manifest bool) (first bool, err error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if w.named++; w.named > MaxContent {
		return false, fmt.Errorf("the referrer names more than %d manifests and blobs: %w", MaxContent, errdefs.ErrResourceExhausted)
	}
	key := name{desc.Digest, manifest}
	if size, seen := w.seen[key]; seen {
		if size != desc.Size {
			return false, fmt.Errorf("%.80s is named with sizes %d and %d: %w", desc.Digest, size, desc.Size, errdefs.ErrInvalidArgument)
		}
		return false, nil
	}
	w.seen[key] = desc.Size
	return true, nil
}
