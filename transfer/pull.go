package transfer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

// pull lets the wrapped service pull the image, and gathers its referrers at the
// same time: from the moment the image is resolved until its record would be
// written.
func (t *Transferrer) pull(ctx context.Context, src transfer.ImageFetcher, dst transfer.ImageStorer, opts ...transfer.Opt) error {
	var config transfer.Config
	for _, opt := range opts {
		opt(&config)
	}
	progress := locked(config.Progress)

	ctx, cancel := context.WithCancel(ctx) // ends the source's streams
	defer cancel()
	ctx, release, err := t.withLease(ctx)
	if err != nil {
		return err
	}
	defer release()

	p, err := t.newPull(ctx, src, progress)
	if err != nil {
		return err
	}
	defer p.close()
	return t.Local.Transfer(ctx, &pullSource{p.src, p}, &pullStore{ImageStorer: dst, p: p}, transfer.WithProgress(progress))
}

func (t *Transferrer) newPull(ctx context.Context, src transfer.ImageFetcher, progress transfer.ProgressFunc) (*pull, error) {
	p := &pull{t: t, progress: progress}
	var err error
	if p.src, err = t.open(ctx, src); err != nil {
		return nil, err
	}
	if s, ok := p.src.(*source.Source); ok {
		p.clientTypes = s.Claim().GetArtifactTypes()
	}
	return p, nil
}

// open makes a source of the daemon's from one that is complete.
func (t *Transferrer) open(ctx context.Context, src transfer.ImageFetcher) (transfer.ImageFetcher, error) {
	switch s := src.(type) {
	case *source.Source:
		if s.Opened() {
			return s, nil
		}
		return source.Open(ctx, s)
	case *registry.OCIRegistry:
		if t.Complete() {
			return source.Open(ctx, s)
		}
	}
	return src, nil
}

// pull is one pull's state.
type pull struct {
	t        *Transferrer
	src      transfer.ImageFetcher
	progress transfer.ProgressFunc
	dry      bool
	// clientTypes are those of the client's selection.
	clientTypes []string

	// Set once the image is resolved; gather is nil where nothing is wanted.
	name      string
	selection *policy.Selection
	gather    *gather.Gather
}

// start begins to gather. The context is that of the wrapped service's pull.
func (p *pull) start(ctx context.Context, name string, root ocispec.Descriptor) error {
	spec, err := reference.Parse(name)
	if err != nil {
		return err
	}
	p.name = name
	if p.selection, err = p.t.Policy.Select(spec.Locator, p.clientTypes); err != nil {
		return err
	}
	if p.selection.Empty() {
		log.G(ctx).WithField("image", name).WithField("selection", p.selection.Origin()).Debug("referrers: nothing to take")
		return nil
	}
	reg, err := p.registry(ctx)
	if err != nil {
		return fmt.Errorf("referrers of %s: %w", name, err)
	}
	p.gather = gather.New(ctx, gather.Config{
		Name:      name,
		Registry:  reg,
		Store:     p.t.Store,
		Selection: p.selection,
		Limits:    p.t.Limits,
		Cosign:    p.t.Cosign,
		Progress:  p.progress,
		Dry:       p.dry,
	})
	p.gather.Image(root)
	return nil
}

func (p *pull) registry(ctx context.Context) (gather.Registry, error) {
	if s, ok := p.src.(*source.Source); ok {
		return s.Registry()
	}
	f, err := p.src.Fetcher(ctx, p.name)
	if err != nil {
		return nil, err
	}
	return fetcherRegistry{f}, nil
}

// finish waits for the referrers and says whether the pull may succeed.
func (p *pull) finish(ctx context.Context) error {
	if p.gather == nil {
		return nil
	}
	began := time.Now()
	outcome, err := p.gather.Wait(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.log(ctx, outcome, time.Since(began))
	if err != nil {
		err = fmt.Errorf("referrers of %s could not be kept: %w", p.name, err)
		if len(p.selection.Required()) > 0 || p.selection.OnError() == policy.Fail {
			return err
		}
		log.G(ctx).WithError(err).Warn("referrers: the image goes on without")
	}
	return outcome.Enforce(p.name, p.selection)
}

// log writes one line a pull, and one for every subject that is not known in
// full.
func (p *pull) log(ctx context.Context, outcome *gather.Outcome, waited time.Duration) {
	status, taken := discovery.Status(""), 0
	for _, s := range outcome.Subjects {
		if s.Image {
			status = status.Worse(s.Status)
		}
		taken += len(s.Taken)
		if s.Status == discovery.Unknown || s.Status == discovery.Truncated {
			log.G(ctx).WithField("image", p.name).WithField("subject", s.Digest).
				WithField("status", s.Status).Warnf("referrers: %s", s.Why)
		}
	}
	log.G(ctx).WithFields(log.Fields{
		"image":     p.name,
		"status":    status,
		"subjects":  len(outcome.Subjects),
		"taken":     taken,
		"waited":    waited.Round(time.Millisecond),
		"selection": p.selection.Origin(),
	}).Info("referrers: gathered")
}

func (p *pull) close() {
	if p.gather != nil {
		p.gather.Close()
	}
	if s, ok := p.src.(*source.Source); ok {
		s.Close()
	}
}

// pullSource is the image's source, watched for the moment it is resolved.
type pullSource struct {
	transfer.ImageFetcher
	p *pull
}

var _ transfer.ImageResolverOptionSetter = (*pullSource)(nil)

func (s *pullSource) Resolve(ctx context.Context) (string, ocispec.Descriptor, error) {
	name, desc, err := s.ImageFetcher.Resolve(ctx)
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	return name, desc, s.p.start(ctx, name, desc)
}

func (s *pullSource) SetResolverOptions(opts ...transfer.ImageResolverOption) {
	if setter, ok := s.ImageFetcher.(transfer.ImageResolverOptionSetter); ok {
		setter.SetResolverOptions(opts...)
	}
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
	if err := d.p.finish(ctx); err != nil {
		return nil, err
	}
	return d.ImageStorer.Store(ctx, desc, store)
}
