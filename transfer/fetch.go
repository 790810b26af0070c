package transfer

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
)

// fetch takes the referrers of an image that is stored, and nothing of the image
// itself. It goes by the digest that is stored, whatever the tag says by now.
//
// What the rule requires decides on the answer alone: the image is there already, and
// is none the better for less that is known of it. So what came is tied in any case,
// and nothing that an earlier pull tied is removed, even by a rule that prunes.
func (t *Transferrer) fetch(ctx context.Context, src transfer.ImageFetcher, dst *explain.FetchDestination, opts ...transfer.Opt) error {
	var config transfer.Config
	for _, opt := range opts {
		opt(&config)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, release, err := t.withLease(ctx)
	if err != nil {
		return err
	}
	defer release()
	p, err := t.newPull(ctx, src, locked(config.Progress))
	if err != nil {
		return err
	}
	defer p.close()
	p.keep = true

	name, root, err := p.storedImage(ctx)
	if err != nil {
		return err
	}
	p.tell(fmt.Sprintf("Fetching referrers of %s", p.src))
	if err := p.start(ctx, name, root); err != nil {
		return err
	}
	if p.gather == nil { // nothing is taken, so that nothing is asked
		return dst.Send(p.explanation(ctx, root.Digest, nil, nil))
	}
	told, err := p.tellStored(ctx, root, dst)
	if err != nil {
		return err
	}
	began := time.Now()
	outcome := p.gather.Wait(ctx)
	waited := time.Since(began)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.report(ctx, outcome, waited, outcome.Enforce(name, p.selection))
	if err := p.gather.Tie(ctx, outcome, root); err != nil {
		return fmt.Errorf("referrers of %s could not be kept: %w", name, err)
	}
	p.tell(fmt.Sprintf("Fetched referrers of %s", p.src))
	return dst.Send(p.explanation(ctx, root.Digest, outcome, told.platformOf))
}

// storedImage returns the image that the source names with its digest, under its own
// name: logs, rules and labels are not to show the digest that a tag stood for.
func (p *pull) storedImage(ctx context.Context) (string, ocispec.Descriptor, error) {
	named, ok := p.src.(interface{ Image() string })
	if !ok {
		return "", ocispec.Descriptor{}, fmt.Errorf("a fetch of referrers needs an image in a registry: %w", errdefs.ErrInvalidArgument)
	}
	spec, err := reference.Parse(named.Image())
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	dgst := spec.Digest()
	if dgst == "" {
		return "", ocispec.Descriptor{}, fmt.Errorf("image %s: name it with the digest that is stored, as in %s@sha256:...: %w", named.Image(), named.Image(), errdefs.ErrInvalidArgument)
	}
	if _, err := p.t.config.Store.Info(ctx, dgst); err != nil {
		return "", ocispec.Descriptor{}, fmt.Errorf("image %s is not stored; pull it, which brings its referrers: %w", named.Image(), err)
	}
	_, root, err := p.resolve(ctx)
	if tag, _, _ := strings.Cut(spec.Object, "@"); tag != "" {
		return spec.Locator + ":" + tag, root, err
	}
	return named.Image(), root, err
}

// tellStored tells the gather of those manifests of the image's index that are
// stored: to others nothing could be tied.
func (p *pull) tellStored(ctx context.Context, root ocispec.Descriptor, dst *explain.FetchDestination) (*told, error) {
	var wanted []ocispec.Platform
	if !dst.AllPlatforms() {
		wanted = orDefault(dst.Platforms())
	}
	t, err := p.tellManifests(ctx, root, wanted, func(ctx context.Context, desc ocispec.Descriptor) bool {
		_, err := p.t.config.Store.Info(ctx, desc.Digest)
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	if t.manifests == 0 && len(dst.Platforms()) > 0 {
		return nil, fmt.Errorf("no manifest of image %s for %s is stored; pull the image for that platform: %w", p.name, platformNames(dst.Platforms()), errdefs.ErrNotFound)
	}
	return t, nil
}

func platformNames(list []ocispec.Platform) string {
	var names []string
	for _, w := range list {
		names = append(names, platforms.FormatAll(w))
	}
	return strings.Join(names, ", ")
}

// tell tells the client how far the whole is, as containerd's pull does.
func (p *pull) tell(what string) {
	if p.progress != nil {
		p.progress(transfer.Progress{Event: what})
	}
}
