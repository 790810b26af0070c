package stored

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// Complete reports whether a referrer is stored with all that it names. The error says
// what is not there, or is wrong.
func Complete(ctx context.Context, store Store, referrer ocispec.Descriptor) error {
	return NewReader(store).Complete(ctx, referrer)
}

// Complete is the function Complete, which reads anew what another referrer names as well.
func (r *Reader) Complete(ctx context.Context, referrer ocispec.Descriptor) error {
	m, err := Manifest(ctx, r.store, referrer)
	if err != nil {
		return ended(ctx, err)
	}
	return ended(ctx, artifact.Walk(ctx, referrer, m, artifact.Visitor{
		Manifest: func(ctx context.Context, desc ocispec.Descriptor, _ []byte) (*artifact.Manifest, error) {
			return r.Child(ctx, desc)
		},
		Blob: func(ctx context.Context, _, desc ocispec.Descriptor, _ []byte) error { return r.HasBlob(ctx, desc) },
	}))
}

// AddSizes adds up the content of each referrer and of those beneath it, which reads
// their manifests.
func AddSizes(ctx context.Context, store Store, referrers []Referrer) error {
	return NewReader(store).addSizes(ctx, referrers, map[digest.Digest]int64{})
}

// addSizes knows the sizes of referrers that stand in another place too.
func (r *Reader) addSizes(ctx context.Context, referrers []Referrer, known map[digest.Digest]int64) error {
	for n := range referrers {
		referrer := &referrers[n]
		size, ok := known[referrer.Digest]
		if !ok {
			size = r.contentSize(ctx, referrer.Descriptor())
			known[referrer.Digest] = size
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		referrer.ContentSize = size
		if err := r.addSizes(ctx, referrer.Referrers, known); err != nil {
			return err
		}
	}
	return nil
}

// contentSize adds up what a referrer names, as far as that can be read: ls shows what is
// damaged without a type.
func (r *Reader) contentSize(ctx context.Context, referrer ocispec.Descriptor) int64 {
	m, err := Manifest(ctx, r.store, referrer)
	if err != nil {
		return 0
	}
	var total int64
	add := func(desc ocispec.Descriptor) {
		if desc.Size > 0 && desc.Size < math.MaxInt64-total { // untrusted
			total += desc.Size
		}
	}
	_ = artifact.Walk(ctx, referrer, m, artifact.Visitor{ // fails where it is too deep, or too much
		Manifest: func(ctx context.Context, desc ocispec.Descriptor, _ []byte) (*artifact.Manifest, error) {
			add(desc)
			below, _ := r.Child(ctx, desc) // nil goes no deeper
			return below, nil
		},
		Blob: func(_ context.Context, _, desc ocispec.Descriptor, _ []byte) error { add(desc); return nil },
	})
	return total
}

// Manifest reads and parses a manifest or index of the descriptor's media type; "" is for one
// whose type is not known.
func Manifest(ctx context.Context, store Store, desc ocispec.Descriptor) (*artifact.Manifest, error) {
	data, err := ReadManifest(ctx, store, desc)
	if err != nil {
		return nil, err
	}
	m, err := artifact.Parse(data, desc.MediaType)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	return m, nil
}

// ReadManifest reads a manifest or index from the store. Content of another size
// than the descriptor says is not read: an untrusted index may have called a layer that is
// stored a manifest. The error is then errdefs.ErrInvalidArgument.
func ReadManifest(ctx context.Context, store content.Provider, desc ocispec.Descriptor) ([]byte, error) {
	return readBytes(ctx, store, desc, artifact.MaxManifestSize)
}

// ReadBlob reads a blob of at most limit bytes from the store, and verifies it: the disk is
// not trusted to have kept it. A larger one is an errdefs.ErrResourceExhausted.
func ReadBlob(ctx context.Context, store content.Provider, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	data, err := readBytes(ctx, store, desc, limit)
	if err != nil {
		return nil, err
	}
	return data, artifact.Verify(data, desc)
}

func readBytes(ctx context.Context, store content.Provider, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := artifact.Check(desc, limit); err != nil {
		return nil, err
	}
	ra, err := store.ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	if ra.Size() != desc.Size {
		return nil, fmt.Errorf("%s is stored with %d bytes, %d are said of it: %w", desc.Digest, ra.Size(), desc.Size, errdefs.ErrInvalidArgument)
	}
	return io.ReadAll(content.NewReader(ra))
}
