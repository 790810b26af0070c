package gather

import (
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// readManifest reads a manifest or index into memory, from where it was met, from the
// store or else from the registry, and sets its true size. Size and media type in a listing
// are hints: registries are known to list the size of all that an artifact holds, and the
// digest vouches for a manifest of any size and kind.
func (g *Gather) readManifest(c *candidate) ([]byte, *artifact.Manifest, error) {
	if err := artifact.Check(c.Descriptor, artifact.MaxManifestSize); err != nil {
		return nil, nil, over(outcome.LimitManifest, err)
	}
	data := c.raw
	if data == nil {
		var err error
		if data, err = g.loadManifest(c); err != nil {
			return nil, nil, err
		}
	}
	if size := int64(len(data)); c.via != outcome.Listed && size != c.Size {
		g.quota.discard(data)
		return nil, nil, fmt.Errorf("manifest %s has %d bytes, %d are said of it: %w", c.Digest, size, c.Size, errdefs.ErrFailedPrecondition)
	}
	c.Size = int64(len(data))
	m, err := artifact.Parse(data, c.MediaType)
	if err != nil && c.via == outcome.Listed { // by what it calls itself
		if own, ownErr := artifact.Parse(data, ""); ownErr == nil {
			m, err, c.MediaType = own, nil, own.MediaType
		}
	}
	if err != nil {
		g.quota.discard(data)
		return nil, nil, over(outcome.LimitManifest, fmt.Errorf("manifest %s: %w", c.Digest, err))
	}
	return data, m, nil
}

// loadManifest returns the candidate's manifest from the store, which it notes, or from the
// registry.
func (g *Gather) loadManifest(c *candidate) ([]byte, error) {
	desc := c.Descriptor
	if info, err := g.config.Store.Info(g.ctx, desc.Digest); err == nil {
		if info.Size > artifact.MaxManifestSize { // a layer that a listing calls a manifest
			return nil, fmt.Errorf("%s is stored with %d bytes, and no manifest: %w", desc.Digest, info.Size, errdefs.ErrInvalidArgument)
		}
		desc.Size, c.stored = info.Size, &info
		return g.readStored(desc)
	}
	if err := g.quota.mayRequest(); err != nil {
		return nil, err
	}
	data, err := g.config.Repository.Manifest(g.ctx, desc)
	if err != nil {
		g.quota.fail(err)
	}
	return data, err
}

// readStored reads a manifest from the store. The disk is not trusted to have kept it.
func (g *Gather) readStored(desc ocispec.Descriptor) ([]byte, error) {
	data, err := stored.ReadManifest(g.ctx, g.config.Store, desc)
	if err != nil {
		return nil, err
	}
	if actual := desc.Digest.Algorithm().FromBytes(data); actual != desc.Digest {
		return nil, fmt.Errorf("%s is damaged in the content store, its bytes have digest %s: remove it (ctr content rm) and pull again: %w", desc.Digest, actual, errdefs.ErrDataLoss)
	}
	return data, nil
}

// storeManifest writes a manifest with labels that keep its children before they are
// there: the collector passes over what is not. It is called with a slot, since an ingest
// is an open file.
func (g *Gather) storeManifest(desc ocispec.Descriptor, data []byte, childLabels map[string]string) error {
	if g.config.Dry {
		return nil
	}
	desc = artifact.Plain(desc)
	cw, err := g.openIngest(desc)
	if errdefs.IsAlreadyExists(err) {
		return g.relabel(desc, childLabels)
	}
	if err != nil {
		return err
	}
	return g.write(cw, desc, childLabels, func(w *writer) error { return w.restart(data) })
}

// child is a manifest that indexes within referrers name; several referrers of a pull may
// share it.
type child struct {
	once sync.Once
	m    *artifact.Manifest
	err  error
}

// maxChildren is how many bytes of manifests within referrers a pull remembers as read.
// What is beyond is read from the store again.
const maxChildren = 8 << 20

// bringChild reads and stores a manifest that an index within a referrer names, once a pull.
func (g *Gather) bringChild(desc ocispec.Descriptor, data []byte) (*artifact.Manifest, error) {
	c := g.child(desc)
	c.once.Do(func() { c.m, c.err = g.storeChild(desc, data) })
	return c.m, c.err
}

// child returns what is remembered of a manifest as an index names it.
func (g *Gather) child(desc ocispec.Descriptor) *child {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := childKey{contentKey{desc.Digest, desc.Size}, desc.MediaType}
	if c := g.children[key]; c != nil {
		return c
	}
	c := &child{}
	if desc.Size > 0 && g.childBytes+desc.Size <= maxChildren {
		g.children[key] = c
		g.childBytes += desc.Size
	}
	return c
}

func (g *Gather) storeChild(desc ocispec.Descriptor, data []byte) (*artifact.Manifest, error) {
	if err := g.downloads.Acquire(g.ctx, 1); err != nil {
		return nil, err
	}
	defer g.downloads.Release(1)
	c := candidate{Descriptor: desc, raw: data}
	data, m, err := g.readManifest(&c)
	if err != nil {
		return nil, err
	}
	if err := g.quota.reserve(desc); err != nil {
		g.quota.discard(data)
		return nil, err
	}
	return m, g.storeManifest(desc, data, labels.Children(m.Children()...))
}
