package stored

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// maxHeld is how many bytes of manifests a reader remembers, as they are stored. What is
// beyond is read anew.
const maxHeld = 8 << 20

// Reader reads what referrers name, for one operation. It remembers what several of them
// may name: a store would be asked again for each.
type Reader struct {
	store    Store
	children map[childKey]readChild
	held     int64
	blobs    map[digest.Digest]readBlob
}

// childKey is a manifest as an index names it.
type childKey struct {
	digest    digest.Digest
	size      int64
	mediaType string
}

type readChild struct {
	m   *artifact.Manifest
	err error
}

type readBlob struct {
	size int64
	err  error
}

// NewReader returns a Reader of the store.
func NewReader(store Store) *Reader {
	return &Reader{store: store, children: map[childKey]readChild{}, blobs: map[digest.Digest]readBlob{}}
}

// Child reads a manifest that an index names, of the type and size that it says.
func (r *Reader) Child(ctx context.Context, desc ocispec.Descriptor) (*artifact.Manifest, error) {
	key := childKey{desc.Digest, desc.Size, desc.MediaType}
	if read, ok := r.children[key]; ok {
		return read.m, read.err
	}
	m, err := Manifest(ctx, r.store, desc)
	if err == nil && r.held+desc.Size > maxHeld {
		return m, nil
	}
	if err == nil {
		r.held += desc.Size
	}
	r.children[key] = readChild{m, err}
	return m, err
}

// HasBlob reports whether a blob is stored with the size that a manifest says.
func (r *Reader) HasBlob(ctx context.Context, desc ocispec.Descriptor) error {
	read, ok := r.blobs[desc.Digest]
	if !ok {
		info, err := r.store.Info(ctx, desc.Digest)
		read = readBlob{info.Size, err}
		r.blobs[desc.Digest] = read
	}
	if read.err == nil && read.size != desc.Size {
		return fmt.Errorf("%s is stored with %d bytes, %d are said of it: %w", desc.Digest, read.size, desc.Size, errdefs.ErrInvalidArgument)
	}
	return read.err
}

// ended returns the cause of a context that has ended, and the error otherwise: a store
// may have failed for it, or not have looked at it.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
