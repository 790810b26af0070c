package transfer

import (
	"context"
	"errors"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/remote"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// Where no image content is transferred, no dispatch tells the gather of the image's
// root and manifests. What is here stands in for it.

// resolve returns what the reference names: from the store, where it has a digest
// that is there, so that a registry that fails can be explained as well.
func (p *pull) resolve(ctx context.Context) (string, ocispec.Descriptor, error) {
	s, ok := p.src.(*source.Source)
	if !ok {
		return p.src.Resolve(ctx)
	}
	spec, err := reference.Parse(s.Image())
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	info, err := p.t.Store.Info(ctx, spec.Digest())
	if spec.Digest() == "" || err != nil {
		return s.Resolve(ctx)
	}
	desc := ocispec.Descriptor{Digest: info.Digest, Size: info.Size}
	m, err := stored.Manifest(ctx, p.t.Store, desc)
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	desc.MediaType = m.MediaType
	return s.Image(), desc, nil
}

// tellManifests tells the gather of the index's manifests of the platforms as a
// pull's dispatch would, and returns their platforms by digest. No platforms means
// all. of, if not nil, narrows the index's children.
func (p *pull) tellManifests(ctx context.Context, root ocispec.Descriptor, wanted []ocispec.Platform, of func(context.Context, ocispec.Descriptor) bool) (map[string]string, error) {
	platformOf := map[string]string{}
	if !images.IsIndexType(root.MediaType) {
		return platformOf, nil
	}
	data, err := p.read(ctx, root)
	if err != nil {
		return nil, err
	}
	root.Data = data // which containerd reads in place of a store's
	children := images.ChildrenHandler(nil)
	narrowed := images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		all, err := children(ctx, desc)
		var out []ocispec.Descriptor
		for _, c := range all {
			if of == nil || isAttestation(c) || of(ctx, c) {
				out = append(out, c)
			}
		}
		return out, err
	})
	store := &pullStore{destination: destination{platformsOnly{wanted: wanted}}, p: p}
	told, err := store.ImageFilter(narrowed, nil)(ctx, root)
	matches := platforms.All
	if len(wanted) > 0 {
		matches = platforms.Ordered(wanted...)
	}
	for _, c := range told {
		if c.Platform != nil && !isAttestation(c) && matches.Match(*c.Platform) {
			platformOf[c.Digest.String()] = platforms.FormatAll(*c.Platform)
		}
	}
	return platformOf, err
}

// orDefault returns the daemon's own platform where a client named none.
func orDefault(wanted []ocispec.Platform) []ocispec.Platform {
	if len(wanted) == 0 {
		return []ocispec.Platform{platforms.DefaultSpec()}
	}
	return wanted
}

// read returns the image's index: from the store, or from the registry.
func (p *pull) read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := remote.Check(desc, remote.MaxManifestSize); err != nil {
		return nil, err
	}
	if _, err := p.t.Store.Info(ctx, desc.Digest); err == nil {
		return stored.ReadManifest(ctx, p.t.Store, desc)
	}
	f, err := p.src.Fetcher(ctx, p.name)
	if err != nil {
		return nil, err
	}
	rc, err := f.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(rc, desc.Size+1))
	if err := errors.Join(err, rc.Close()); err != nil {
		return nil, err
	}
	return data, remote.Verify(data, desc)
}

// platformsOnly is a destination that is only asked for its platforms.
type platformsOnly struct {
	transfer.ImageStorer
	wanted []ocispec.Platform
}

func (d platformsOnly) Platforms() []ocispec.Platform { return d.wanted }
