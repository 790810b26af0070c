package transfer

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/push"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

// push lets the wrapped service push the image, and then carries its stored
// referrers after it. Where neither the operator nor the client asks for them it is
// the wrapped service's alone.
func (t *Transferrer) push(ctx context.Context, src transfer.ImageGetter, dst transfer.ImagePusher, opts ...transfer.Opt) error {
	var selection *api.Selection
	if s, ok := dst.(*source.Source); ok {
		selection = s.Claim()
	}
	if !t.config.Push && selection == nil {
		return t.config.Local.Transfer(ctx, src, dst, opts...)
	}
	ctx, cancel := context.WithCancel(ctx) // ends the destination's streams
	defer cancel()
	registry, err := t.open(ctx, dst)
	if err != nil {
		return fmt.Errorf("referrers cannot be pushed (key push, or the client's selection): %w", err)
	}
	defer registry.Close()
	registry.Claim() // a source of this daemon's making refuses to push what no one claimed
	admit, err := admits(registry.Image(), selection)
	if err != nil {
		return err
	}

	var config transfer.Config
	for _, opt := range opts {
		opt(&config)
	}
	progress := &pushProgress{send: locked(config.Progress)}
	pushed := &pushDestination{ImagePusher: registry}
	if err := t.config.Local.Transfer(ctx, src, pushed, transfer.WithProgress(progress.image())); err != nil {
		return err
	}
	carried, err := t.pushReferrers(ctx, src, pushed, push.Config{Admit: admit, Locks: &t.pushLocks, Progress: progress.send})
	if err != nil {
		return fmt.Errorf("image %s has been pushed, but not all of its referrers: %w; push again once that is mended, select others with ctr referrers push --artifact-type, or leave all behind with push = false", registry.Image(), err)
	}
	log.G(ctx).WithField("image", registry.Image()).WithField("carried", carried).Info("referrers: pushed")
	progress.complete()
	return nil
}

// admits returns what a client's selection lets through. The operator's rules are
// about what to take; what they took may be carried.
func admits(image string, selection *api.Selection) (func(artifact.Referrer) bool, error) {
	if len(selection.GetArtifactTypes()) == 0 {
		return nil, nil
	}
	spec, err := reference.Parse(image)
	if err != nil {
		return nil, err
	}
	s, err := (&policy.Policy{}).Select(spec.Locator, selection.GetArtifactTypes())
	if err != nil {
		return nil, err
	}
	return func(r artifact.Referrer) bool { return s.DecideManifest(r).Verdict == policy.Take }, nil
}

func (t *Transferrer) pushReferrers(ctx context.Context, src transfer.ImageGetter, pushed *pushDestination, config push.Config) (int, error) {
	registry := pushed.ImagePusher.(*source.Source)
	config.Image = images.Image{Name: registry.Image(), Target: pushed.target}
	config.Store = t.config.Store
	if g, ok := src.(transfer.ImagePlatformsGetter); ok {
		if wanted := g.Platforms(); len(wanted) > 0 {
			config.Platforms = platforms.Any(wanted...)
		}
	}
	var err error
	if config.Repository, err = registry.PushRepository(); err != nil {
		return 0, err
	}
	if config.Blobs, err = registry.Pusher(ctx, pushed.target); err != nil {
		return 0, err
	}
	return push.Referrers(ctx, config)
}

// pushDestination is a push's destination, watched for what the image is.
type pushDestination struct {
	transfer.ImagePusher
	target ocispec.Descriptor
}

func (d *pushDestination) Pusher(ctx context.Context, desc ocispec.Descriptor) (transfer.Pusher, error) {
	d.target = desc
	return d.ImagePusher.Pusher(ctx, desc)
}

func (d *pushDestination) String() string { return fmt.Sprint(d.ImagePusher) }

// pushProgress holds back the word that the push is complete until the referrers
// are in the registry as well.
type pushProgress struct {
	send transfer.ProgressFunc
	last *transfer.Progress
}

// image returns what the image's own push reports to.
func (p *pushProgress) image() transfer.ProgressFunc {
	if p.send == nil {
		return nil
	}
	return func(e transfer.Progress) {
		if e.Name == "" && strings.HasPrefix(e.Event, "Completed push") {
			p.last = &e
			return
		}
		p.send(e)
	}
}

func (p *pushProgress) complete() {
	if p.last != nil {
		p.send(*p.last)
	}
}
