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

// reader reads what referrers name, for one operation. It remembers what several of them
// may name: a store would be asked again for each.
type reader struct {
	store    Store
	children map[child]readChild
	held     int64
	blobs    map[digest.Digest]readBlob
}

// child is a manifest that an index names, of the size that it says.
type child struct {
	digest digest.Digest
	size   int64
}

type readChild struct {
	m   *artifact.Manifest
	err error
}

type readBlob struct {
	size int64
	err  error
}

func newReader(store Store) *reader {
	return &reader{store: store, children: map[child]readChild{}, blobs: map[digest.Digest]readBlob{}}
}

// child reads a manifest that an index names.
func (r *reader) child(ctx context.Context, desc ocispec.Descriptor) (*artifact.Manifest, error) {
	key := child{desc.Digest, desc.Size}
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

// hasBlob reports whether a blob is stored with the size that a manifest says.
func (r *reader) hasBlob(ctx context.Context, desc ocispec.Descriptor) error {
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
