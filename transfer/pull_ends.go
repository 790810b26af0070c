package transfer

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The wrapped service sees a pull's source and destination through these two.
// They pass on every optional interface: one lost, and unpacking or platform
// filters would vanish without a word.

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
	transfer.ImageStorer
	p *pull

	mu    sync.Mutex
	noted []ocispec.Descriptor // attestation manifests of the image's indexes
}

var (
	_ transfer.ImageFilterer        = (*pullStore)(nil)
	_ transfer.ImageUnpacker        = (*pullStore)(nil)
	_ transfer.ImagePlatformsGetter = (*pullStore)(nil)
	_ fmt.Stringer                  = (*pullStore)(nil)
)

// ImageFilter implements transfer.ImageFilterer: the destination's own filter,
// and behind it, out of its way, the gather, which learns of each manifest as
// soon as an index names it.
func (d *pullStore) ImageFilter(h images.HandlerFunc, store content.Store) images.HandlerFunc {
	h = d.noteAttestations(h)
	if f, ok := d.ImageStorer.(transfer.ImageFilterer); ok {
		h = f.ImageFilter(h, store)
	}
	wanted := platforms.All
	if ps := d.Platforms(); len(ps) > 0 {
		wanted = platforms.Ordered(ps...)
	}
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h(ctx, desc)
		if err == nil && d.p.gather != nil && images.IsIndexType(desc.MediaType) {
			for _, child := range children {
				if (child.Platform == nil || wanted.Match(*child.Platform)) && !isAttestation(child) {
					d.p.gather.Image(child)
					for _, a := range d.attestations(child.Digest) {
						d.p.gather.Embedded(child.Digest, a)
					}
				}
			}
		}
		return children, err
	}
}

// noteAttestations remembers the attestation manifests of an index before the
// destination's filter drops them: their platform is unknown/unknown.
func (d *pullStore) noteAttestations(h images.HandlerFunc) images.HandlerFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h(ctx, desc)
		if err == nil && images.IsIndexType(desc.MediaType) {
			d.mu.Lock()
			defer d.mu.Unlock()
			for _, child := range children {
				if isAttestation(child) {
					d.noted = append(d.noted, child)
				}
			}
		}
		return children, err
	}
}

// attestations returns those that name the manifest.
func (d *pullStore) attestations(manifest digest.Digest) []ocispec.Descriptor {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []ocispec.Descriptor
	for _, a := range d.noted {
		if a.Annotations["vnd.docker.reference.digest"] == manifest.String() {
			out = append(out, a)
		}
	}
	return out
}

// isAttestation tells BuildKit's attestation manifests, which lie in the image's
// index, from the image's own (BuildKit, "Image Attestation Storage").
func isAttestation(desc ocispec.Descriptor) bool {
	return desc.Annotations["vnd.docker.reference.type"] == "attestation-manifest"
}

func (d *pullStore) UnpackPlatforms() []transfer.UnpackConfiguration {
	if u, ok := d.ImageStorer.(transfer.ImageUnpacker); ok {
		return u.UnpackPlatforms()
	}
	return nil
}

func (d *pullStore) Platforms() []ocispec.Platform {
	if g, ok := d.ImageStorer.(transfer.ImagePlatformsGetter); ok {
		return g.Platforms()
	}
	return nil
}

func (d *pullStore) String() string { return fmt.Sprint(d.ImageStorer) }

// Store implements transfer.ImageStorer. The image's content is complete when it
// is called; no record is written of an image that lacks what is required.
func (d *pullStore) Store(ctx context.Context, desc ocispec.Descriptor, store images.Store) ([]images.Image, error) {
	if err := d.p.finish(ctx, desc); err != nil {
		return nil, err
	}
	return d.ImageStorer.Store(ctx, desc, store)
}
