package gather

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/remote"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// blob is content of a referrer; several referrers of a pull may share it.
type blob struct {
	once sync.Once
	err  error
}

// contentKey tells content apart as descriptors do: one that lies about a size must
// not fail for the others.
type contentKey struct {
	digest digest.Digest
	size   int64
}

// children brings in what the manifest names.
func (g *Gather) children(parent ocispec.Descriptor, m *artifact.Manifest, nesting int) error {
	if len(m.Manifests) > 0 && nesting == artifact.MaxNesting {
		return over(LimitManifest, fmt.Errorf("%s: indexes lie more than %d deep: %w", parent.Digest, artifact.MaxNesting, errdefs.ErrResourceExhausted))
	}
	// What lacks one piece is not taken, and needs no other.
	var eg errgroup.Group
	eg.SetLimit(g.Limits.MaxConcurrentDownloads)
	var lacks atomic.Bool
	bring := func(piece func() error) {
		eg.Go(func() error {
			if lacks.Load() {
				return nil
			}
			err := piece()
			if err != nil {
				lacks.Store(true)
			}
			return err
		})
	}
	for _, desc := range m.Blobs {
		bring(func() error { return g.blob(parent, plain(desc), verified(desc)) })
	}
	for _, desc := range m.Manifests {
		data, desc := verified(desc), plain(desc)
		if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
			bring(func() error { return g.blob(parent, desc, data) })
			continue
		}
		bring(func() error {
			child, err := g.manifest(candidate{Descriptor: desc, manifest: data}, nil)
			if err != nil {
				return err
			}
			return g.children(desc, child, nesting+1)
		})
	}
	return eg.Wait()
}

// plain keeps of a descriptor what identifies content. Annotations come from the
// network, and would reach ingest refs and labels.
func plain(desc ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
}

// verified returns the content that the descriptor carries inline, or that every
// registry's empty descriptor has (OCI image-spec, "Guidance for an Empty
// Descriptor"); nil where there is none, or it is not what it should be.
func verified(desc ocispec.Descriptor) []byte {
	if desc.Digest == ocispec.DescriptorEmptyJSON.Digest {
		desc.Data = ocispec.DescriptorEmptyJSON.Data
	}
	if len(desc.Data) == 0 || desc.Digest.Validate() != nil || remote.Verify(desc.Data, desc) != nil {
		return nil
	}
	return desc.Data
}

// manifest reads a manifest or index, has it judged and brings it into the store.
// It is labelled to keep its children before they are there: the collector passes over
// what is not.
func (g *Gather) manifest(c candidate, judge func(*artifact.Manifest) error) (*artifact.Manifest, error) {
	desc := plain(c.Descriptor)
	if err := remote.Check(desc, remote.MaxManifestSize); err != nil {
		return nil, over(LimitManifest, err)
	}
	var m *artifact.Manifest
	parse := func(data []byte) (keep map[string]string, err error) {
		defer func() {
			if err != nil {
				g.waste(data)
			}
		}()
		if m, err = artifact.Parse(data, desc.MediaType, MaxChildren); err != nil {
			return nil, over(LimitManifest, fmt.Errorf("manifest %s: %w", desc.Digest, err))
		}
		if judge != nil {
			if err := judge(m); err != nil {
				return nil, err
			}
		}
		if err := g.reserve(desc); err != nil {
			return nil, err
		}
		keep = labels.Children(m.Children()...)
		if c.legacy != "" {
			keep[labels.ArtifactType] = m.ArtifactType // as it was judged
		}
		return keep, nil
	}
	// A slot first: an ingest is an open file.
	if err := g.downloads.Acquire(g.ctx, 1); err != nil {
		return nil, err
	}
	defer g.downloads.Release(1)
	if g.Dry {
		data, err := g.peek(c, desc)
		if err != nil {
			return nil, err
		}
		_, err = parse(data)
		return m, err
	}
	cw, err := g.open(desc)
	if err == nil && whole(cw, desc) {
		// It can be read once it is this namespace's, and is judged then. One
		// that is not wanted goes when the lease ends, since nothing refers to it.
		if err = g.write(cw, desc, changed); err == nil {
			err = errdefs.ErrAlreadyExists
		}
	}
	if errdefs.IsAlreadyExists(err) {
		data, err := g.read(desc)
		if err != nil {
			return nil, err
		}
		keep, err := parse(data)
		if err != nil {
			return nil, err
		}
		return m, g.relabel(desc, keep)
	}
	if err != nil {
		return nil, err
	}
	err = g.write(cw, desc, func(w *writer) (map[string]string, error) {
		data := c.manifest
		if data == nil {
			var err error
			if data, err = g.fetchManifest(desc, judge != nil); err != nil {
				return nil, err
			}
		}
		keep, err := parse(data)
		if err != nil {
			return nil, err
		}
		return keep, w.restart(data)
	})
	return m, err
}

// changed is for an ingest that is only to be committed.
func changed(*writer) (map[string]string, error) {
	return nil, fmt.Errorf("the ingest was whole and is no longer: %w", errdefs.ErrUnavailable)
}

// peek reads a manifest and stores nothing.
func (g *Gather) peek(c candidate, desc ocispec.Descriptor) ([]byte, error) {
	if c.manifest != nil {
		return c.manifest, nil
	}
	if info, err := g.Store.Info(g.ctx, desc.Digest); err == nil && info.Size == desc.Size {
		return g.read(desc)
	}
	return g.fetchManifest(desc, c.way != "")
}

// fetchManifest asks the registry for a manifest. Those that are read and then not taken
// may come to as many bytes as one pull may take.
func (g *Gather) fetchManifest(desc ocispec.Descriptor, judged bool) ([]byte, error) {
	g.mu.Lock()
	left, pieces := g.Limits.MaxTotalSize-g.wasted, len(g.sized)+g.failed
	g.mu.Unlock()
	if pieces >= maxPieces {
		return nil, overPieces(desc)
	}
	if left <= 0 {
		return nil, over(LimitTotalSize, fmt.Errorf("its manifest is not read: those that were read and not taken came to %d bytes (key max_total_size): %w", g.Limits.MaxTotalSize, errdefs.ErrResourceExhausted))
	}
	data, err := g.Registry.Manifest(g.ctx, desc)
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, remote.ErrOtherSize):
		if !judged { // which would be read again as what it is
			g.waste(data)
		}
		return nil, otherSize{err, data}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed++
	if errdefs.IsFailedPrecondition(err) { // of which how much came is not known
		g.wasted += remote.MaxManifestSize
	}
	return nil, err
}

// waste counts a manifest that was read and is not taken.
func (g *Gather) waste(data []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wasted += int64(len(data))
}

// otherSize is the error of a manifest that has its descriptor's digest, and not its
// size; the digest vouches for the data all the same.
type otherSize struct {
	error
	data []byte
}

func (o otherSize) Unwrap() error { return o.error }

// read reads a manifest from the store. The disk is not trusted to have kept it.
func (g *Gather) read(desc ocispec.Descriptor) ([]byte, error) {
	data, err := stored.ReadManifest(g.ctx, g.Store, desc)
	if err != nil {
		return nil, err
	}
	if actual := desc.Digest.Algorithm().FromBytes(data); actual != desc.Digest {
		return nil, fmt.Errorf("%s is damaged in the content store, its bytes have digest %s: remove it (ctr content rm) and pull again: %w", desc.Digest, actual, errdefs.ErrDataLoss)
	}
	return data, nil
}

// blob brings one blob in, once a pull, from data if that is not nil.
func (g *Gather) blob(parent, desc ocispec.Descriptor, data []byte) error {
	if isNothing(desc) {
		data = []byte{}
	} else if err := remote.Check(desc, g.Limits.MaxBlobSize); errdefs.IsResourceExhausted(err) {
		return over(LimitBlobSize, fmt.Errorf("%w (key max_blob_size)", err))
	} else if err != nil {
		return err
	}
	if err := g.reserve(desc); err != nil {
		return err
	}
	if g.Dry {
		return nil
	}
	g.mu.Lock()
	key := contentKey{desc.Digest, desc.Size}
	b := g.blobs[key]
	if b == nil {
		b = &blob{}
		g.blobs[key] = b
	}
	g.mu.Unlock()
	b.once.Do(func() { b.err = g.fetchBlob(parent, desc, data) })
	return b.err
}

// isNothing reports whether content has no bytes, and the digest of none. No other size of 0
// is believed.
func isNothing(desc ocispec.Descriptor) bool {
	return desc.Size == 0 && desc.Digest.Validate() == nil && desc.Digest.Algorithm().FromBytes(nil) == desc.Digest
}

// maxPieces is how many manifests and blobs one pull may take in all: an index of indexes
// of small artifacts has tens of thousands in few bytes, each a request and a file.
const maxPieces = 10_000

// reserve counts content against the limits of the pull, each once.
func (g *Gather) reserve(desc ocispec.Descriptor) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := contentKey{desc.Digest, desc.Size}
	if g.sized[key] {
		return nil
	}
	if desc.Size > g.Limits.MaxTotalSize-g.total {
		return over(LimitTotalSize, fmt.Errorf("%s: the pull's referrers are over the limit of %d bytes in all (key max_total_size): %w", desc.Digest, g.Limits.MaxTotalSize, errdefs.ErrResourceExhausted))
	}
	if len(g.sized)+g.failed >= maxPieces {
		return overPieces(desc)
	}
	g.sized[key] = true
	g.total += desc.Size
	return nil
}

func overPieces(desc ocispec.Descriptor) error {
	return over(LimitOther, fmt.Errorf("%s: the pull's referrers are over the limit of %d manifests and blobs in all: %w", desc.Digest, maxPieces, errdefs.ErrResourceExhausted))
}

func (g *Gather) fetchBlob(parent, desc ocispec.Descriptor, data []byte) error {
	g.report(event{"waiting", desc, parent, 0})
	if err := g.downloads.Acquire(g.ctx, 1); err != nil {
		g.report(event{"failed", desc, parent, 0})
		return err
	}
	defer g.downloads.Release(1)
	cw, err := g.open(desc)
	if errdefs.IsAlreadyExists(err) {
		g.report(event{"already exists", desc, parent, desc.Size})
		return g.relabel(desc, nil)
	}
	if err != nil {
		g.report(event{"failed", desc, parent, 0})
		return err
	}
	err = g.write(cw, desc, func(w *writer) (map[string]string, error) {
		if data != nil {
			return nil, w.restart(data)
		}
		return nil, g.Registry.Blob(g.ctx, desc, func(r io.Reader) error {
			if err := w.stream(&progressReader{Reader: r, g: g, desc: desc, parent: parent}, desc.Size); err != nil {
				return err
			}
			// The store counts in sha256 until it commits.
			if actual := w.Digest(); actual.Algorithm() == desc.Digest.Algorithm() && actual != desc.Digest {
				return fmt.Errorf("content has digest %s: %w", actual, errdefs.ErrFailedPrecondition)
			}
			return nil
		})
	})
	if err != nil {
		// "complete" closes the request for CRI, which would otherwise wait
		// for it and cancel the pull; ctr shows the event that comes last.
		g.report(event{"complete", desc, parent, 0}, event{"failed", desc, parent, 0})
		return err
	}
	g.report(event{"complete", desc, parent, desc.Size})
	return nil
}
