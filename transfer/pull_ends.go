package transfer

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// The wrapped service sees a pull's source and destination through these two.

// pullSource is the image's source, watched for the moment it is resolved.
type pullSource struct {
	transfer.ImageFetcher
	p    *pull
	opts []transfer.ImageResolverOption
}

var _ transfer.ImageResolverOptionSetter = (*pullSource)(nil)

func (s *pullSource) Resolve(ctx context.Context) (string, ocispec.Descriptor, error) {
	name, desc, err := s.ImageFetcher.Resolve(ctx)
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	err = s.p.start(ctx, name, desc)
	if setter, ok := s.ImageFetcher.(transfer.ImageResolverOptionSetter); ok {
		setter.SetResolverOptions(s.opts...)
	}
	return name, desc, err
}

// SetResolverOptions implements transfer.ImageResolverOptionSetter. The options
// hand over the download slots that all pulls of the daemon share. They are passed
// on once the gather has its own fetcher, so that a referrer that hangs holds none.
func (s *pullSource) SetResolverOptions(opts ...transfer.ImageResolverOption) {
	s.opts = opts
}

func (s *pullSource) String() string { return fmt.Sprint(s.ImageFetcher) }

// pullStore is the pull's destination, watched for the manifests that pass
// through it and for the moment the image record would be written.
type pullStore struct {
	destination
	p        *pull
	attested attestations
}

// ImageFilter implements transfer.ImageFilterer: the destination's own filter,
// and behind it, out of its way, the gather, which learns of each manifest as
// soon as an index names it.
func (d *pullStore) ImageFilter(h images.HandlerFunc, store content.Store) images.HandlerFunc {
	h = d.destination.ImageFilter(d.attested.note(h), store)
	wanted := matcher(d.Platforms())
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h(ctx, desc)
		if err == nil {
			d.p.tellChildren(desc, children, wanted, &d.attested)
		}
		return children, err
	}
}

// tellChildren tells the gather of what an index of the image names and the pull is
// for, and of the attestations of that.
func (p *pull) tellChildren(index ocispec.Descriptor, children []ocispec.Descriptor, wanted platforms.Matcher, attested *attestations) {
	if p.gather == nil || !artifact.IsIndex(index.MediaType) {
		return
	}
	for _, child := range children {
		if artifact.IsBuildKitEntry(child) || child.Platform != nil && !wanted.Match(*child.Platform) {
			continue
		}
		p.gather.Image(child, index.Digest)
		for _, a := range attested.of(child.Digest) {
			p.gather.Embedded(child.Digest, a)
		}
	}
}

// matcher returns what tells the platforms from others; none means all.
func matcher(wanted []ocispec.Platform) platforms.MatchComparer {
	if len(wanted) == 0 {
		return platforms.All
	}
	return platforms.Ordered(wanted...)
}

// Store implements transfer.ImageStorer. The image's content is complete when it
// is called; no record is written of an image that lacks what is required.
func (d *pullStore) Store(ctx context.Context, desc ocispec.Descriptor, store images.Store) ([]images.Image, error) {
	if err := d.p.finish(ctx, desc); err != nil {
		return nil, err
	}
	return d.ImageStorer.Store(ctx, desc, store)
}
