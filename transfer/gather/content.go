package gather

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// blob is content of a referrer; several referrers of a pull may share it.
type blob struct {
	once sync.Once
	err  error
}

// fetchContent brings in all that a referrer's manifest names. What lacks one piece is not
// taken: after the first failure no other is begun.
func (g *Gather) fetchContent(a *attempt) error {
	eg, ctx := errgroup.WithContext(g.ctx)
	eg.SetLimit(g.config.Limits.MaxConcurrentDownloads)
	walkErr := artifact.Walk(ctx, a.Descriptor, a.manifest, artifact.Visitor{
		Manifest: func(_ context.Context, desc ocispec.Descriptor, data []byte) (*artifact.Manifest, error) {
			return g.bringChild(desc, data)
		},
		Blob: func(_ context.Context, parent, desc ocispec.Descriptor, data []byte) error {
			if err := g.reserveBlob(desc); err != nil {
				return err
			}
			if a.kept && g.hasBlob(desc) {
				g.report(event{"already exists", desc, parent, desc.Size})
				return nil
			}
			eg.Go(func() error { return g.fetchOnce(parent, desc, data) })
			return nil
		},
	})
	if err := eg.Wait(); err != nil {
		return err
	}
	return over(outcome.LimitManifest, walkErr)
}

// reserveBlob holds a blob against the limits.
func (g *Gather) reserveBlob(desc ocispec.Descriptor) error {
	if !artifact.IsEmpty(desc) {
		err := artifact.Check(desc, g.config.Limits.MaxBlobSize)
		if errdefs.IsResourceExhausted(err) {
			return over(outcome.LimitBlobSize, fmt.Errorf("%w (key max_blob_size)", err))
		}
		if err != nil {
			return err
		}
	}
	return g.quota.reserve(desc)
}

// fetchOnce brings a blob in, once a pull, from data if that is not nil.
func (g *Gather) fetchOnce(parent, desc ocispec.Descriptor, data []byte) error {
	if g.config.Dry {
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

func (g *Gather) fetchBlob(parent, desc ocispec.Descriptor, data []byte) error {
	g.report(event{"waiting", desc, parent, 0})
	if err := g.downloads.Acquire(g.ctx, 1); err != nil {
		g.report(event{"failed", desc, parent, 0})
		return err
	}
	defer g.downloads.Release(1)
	cw, err := g.openIngest(desc)
	if errdefs.IsAlreadyExists(err) {
		g.report(event{"already exists", desc, parent, desc.Size})
		return g.relabel(desc, nil)
	}
	if err != nil {
		g.report(event{"failed", desc, parent, 0})
		return err
	}
	err = g.write(cw, desc, nil, func(w *writer) error {
		if data != nil {
			return w.restart(data)
		}
		return g.config.Repository.Blob(g.ctx, desc, func(r io.Reader) error {
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
