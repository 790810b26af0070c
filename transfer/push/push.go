// Package push carries an image's stored referrers to the registry that the image
// has just been pushed to.
//
// [Referrers] walks what is stored from the subjects down, so that no referrer
// arrives before its subject and no manifest before its blobs. Where the registry
// does not list by itself what refers to a subject it writes the fallback tag.
package push

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// maxConcurrent is how many referrers of one subject are pushed at a time.
const maxConcurrent = 3

// Config says what to push, and where to.
type Config struct {
	// Image is the image that was pushed.
	Image images.Image
	// Platforms are those that the push chose; nil is all.
	Platforms platforms.Matcher
	// Admit says which referrers to carry; nil is all. What refers to one that
	// is left out is left out too.
	Admit func(artifact.Referrer) bool
	Store stored.Store
	// Repository is where manifests go, made by its ForPush.
	Repository *registry.Repository
	// Blobs uploads or mounts blobs at the same host.
	Blobs remotes.Pusher
	// Locks are those of the daemon's pushes.
	Locks *Locks
	// Progress may be nil; it must be safe for concurrent use.
	Progress transfer.ProgressFunc
}

// Referrers pushes the stored referrers of the image's subjects, and theirs, and
// returns how many are in the registry then. The error names the first referrer
// that could not be pushed.
func Referrers(ctx context.Context, config Config) (int, error) {
	image, err := stored.Read(ctx, config.Store, config.Image)
	if err != nil {
		return 0, err
	}
	p := &pusher{
		config:      config,
		host:        config.Repository.Hosts(docker.HostCapabilityPush)[0],
		ofImage:     map[digest.Digest]bool{},
		byImagePush: map[digest.Digest]bool{},
		blobs:       blobs{},
	}
	for _, s := range image.Subjects {
		p.ofImage[s.Digest] = true
		p.byImagePush[s.Digest] = s.Platform == nil || config.Platforms == nil || config.Platforms.Match(*s.Platform)
	}
	for _, s := range image.Subjects {
		if !p.byImagePush[s.Digest] {
			continue
		}
		var referrers []stored.Referrer
		for _, r := range image.Referrers {
			if r.Subject == s.Digest {
				referrers = append(referrers, r)
			}
		}
		if err := p.subject(ctx, artifact.Plain(s.Descriptor), referrers); err != nil {
			return p.carried, err
		}
	}
	return p.carried, nil
}

// pusher is one push's state.
type pusher struct {
	config      Config
	host        *registry.Host
	ofImage     map[digest.Digest]bool // the manifests of the image itself
	byImagePush map[digest.Digest]bool // those that the image's own push has brought
	carried     int

	mu    sync.Mutex
	blobs blobs
}

// subject pushes the referrers of a subject that is in the registry, sees to it that
// they are listed, and goes on to what refers to them.
func (p *pusher) subject(ctx context.Context, subject ocispec.Descriptor, all []stored.Referrer) error {
	if len(all) == 0 {
		return nil
	}
	done := make([]*referrer, len(all))
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(maxConcurrent)
	for i, r := range all {
		if p.config.Admit != nil && !p.config.Admit(artifact.Referrer{ArtifactType: r.ArtifactType, Annotations: r.Annotations}) {
			log.G(ctx).WithField("subject", subject.Digest).WithField("digest", r.Digest).Debug("referrers: not selected")
			continue
		}
		eg.Go(func() (err error) {
			done[i], err = p.referrer(egCtx, subject, r)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	if err := p.ensureListed(ctx, subject.Digest, done); err != nil {
		return err
	}
	for _, r := range done {
		if r == nil {
			continue
		}
		p.carried++
		if err := p.subject(ctx, artifact.Plain(r.Descriptor()), r.Referrers); err != nil {
			return err
		}
	}
	return nil
}

// failed names the referrer that an error is about.
func failed(subject digest.Digest, r stored.Referrer, err error) error {
	return fmt.Errorf("referrer %s (%s) of subject %s: %w", r.Digest, r.ArtifactType, subject, err)
}
