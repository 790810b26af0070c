package transfer

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/metrics"
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
	if errdefs.IsFailedPrecondition(err) {
		p, err = &pull{t: t, src: src, progress: progress, unopened: err}, nil
	}
	if err != nil {
		t.config.Metrics.Pull(metrics.Failed)
		return err
	}
	defer p.close()
	p.expect(ctx)
	err = t.config.Local.Transfer(ctx, &pullSource{ImageFetcher: p.src, p: p}, &pullStore{destination: destination{dst}, p: p}, transfer.WithProgress(progress))
	t.config.Metrics.Pull(p.ended(err))
	return err
}

func (t *Transferrer) newPull(ctx context.Context, src transfer.ImageFetcher, progress transfer.ProgressFunc) (*pull, error) {
	opened, err := open(ctx, src)
	if err != nil {
		return nil, err
	}
	return &pull{t: t, src: opened, progress: progress, claim: opened.Claim()}, nil
}

// expect prepares for an image that is not there, which its source gets with a
// request less, or for one that is, whose referrers are asked for at once.
func (p *pull) expect(ctx context.Context) {
	s, ok := p.src.(*source.Source)
	if !ok || p.unopened != nil || p.t.config.Images == nil {
		return
	}
	image, err := p.t.config.Images.Get(ctx, s.Image())
	switch {
	case errdefs.IsNotFound(err):
		if spec, err := reference.Parse(s.Image()); err == nil && spec.Digest() != "" {
			if _, err := p.t.config.Store.Info(ctx, spec.Digest()); err == nil {
				return // its manifest is there, under another name
			}
		}
		s.ResolveByGet()
	case err == nil:
		p.prefetch = p.prefetchAnswers(ctx, s, image)
	}
}

// open makes a source of the daemon's of one end of a transfer. The error is
// errdefs.ErrFailedPrecondition where its registry cannot be asked as the image's own
// requests ask it.
func open(ctx context.Context, end any) (*source.Source, error) {
	switch s := end.(type) {
	case *source.Source:
		if s.Opened() {
			return s, nil
		}
		return source.Open(ctx, s)
	case *registry.OCIRegistry:
		return source.Open(ctx, s)
	}
	return nil, fmt.Errorf("a %T does not tell how its registry is asked, as a registry.OCIRegistry does: %w", end, errdefs.ErrFailedPrecondition)
}

// pull is one pull's state.
type pull struct {
	t        *Transferrer
	src      transfer.ImageFetcher // a *source.Source, but where it is unopened
	unopened error                 // why not; then no registry is asked for referrers
	progress transfer.ProgressFunc
	dry      bool
	// keep keeps every referrer that is stored.
	keep bool
	// claim is the client's selection, nil where it sent none.
	claim *api.Selection

	// Set once the image is resolved; gather is nil where nothing is wanted.
	name      string
	root      digest.Digest
	selection *policy.Selection
	gather    *gather.Gather
	prefetch  *prefetch // nil where the image was not there

	outcome metrics.Outcome // "" until the referrers are in, or given up
}

// start begins to gather. The context is that of the wrapped service's pull.
func (p *pull) start(ctx context.Context, name string, root ocispec.Descriptor) error {
	spec, err := reference.Parse(name)
	if err != nil {
		return err
	}
	p.name, p.root = name, root.Digest
	if p.selection, err = p.selects(spec.Locator); err != nil {
		return err
	}
	if p.selection.Empty() {
		log.G(ctx).WithField("image", name).WithField("selection", p.selection.Origin()).Debug("referrers: nothing to take")
		return nil
	}
	if p.unopened != nil {
		return p.goPast(ctx)
	}
	reg, err := p.registry()
	if err != nil {
		return fmt.Errorf("referrers of %s: %w", name, err)
	}
	p.gather = gather.New(ctx, gather.Config{
		Name:      name,
		Registry:  reg,
		Store:     p.t.config.Store,
		Labeler:   p.t.labeler,
		Selection: p.selection,
		Limits:    p.t.config.Limits,
		Cosign:    p.t.config.Cosign,
		Progress:  p.progress,
		Dry:       p.dry,
		Keep:      p.keep,
	})
	p.gather.Image(root)
	return nil
}

// selects returns what the pull asks for of the repository.
func (p *pull) selects(repository string) (*policy.Selection, error) {
	s, err := p.t.config.Policy.Select(repository, p.claim.GetArtifactTypes())
	if err != nil {
		return nil, err
	}
	return s.WithDepth(int(p.claim.GetDepth()))
}

// goPast lets the pull of a source that is unopened go on without referrers, unless its
// rule needs to know of them.
func (p *pull) goPast(ctx context.Context) error {
	needs := ""
	if required := p.selection.Required(); len(required) > 0 {
		needs = "requires " + strings.Join(required, ", ")
	} else if p.selection.OnError() == policy.Fail {
		needs = `has on_error = "fail"`
	}
	if needs != "" {
		p.outcome = metrics.Refused
		return fmt.Errorf("the referrers of image %s cannot be asked for, and %s %s: %w", p.name, p.selection.Origin(), needs, p.unopened)
	}
	p.outcome = metrics.Unknown
	log.G(ctx).WithField("image", p.name).WithError(p.unopened).Warn("referrers: the image is pulled without, since they cannot be asked for")
	return nil
}

func (p *pull) registry() (gather.Registry, error) {
	if p.prefetch != nil {
		return p.prefetch, nil
	}
	r, err := p.src.(*source.Source).Registry()
	if err == nil {
		r.OnRequest(p.t.config.Metrics.Request)
	}
	return r, err
}

// finish waits for the referrers, reports whether the pull may succeed, and if so ties
// what came. A pull that is refused leaves the labels of an image that is there
// already as they are.
func (p *pull) finish(ctx context.Context, target ocispec.Descriptor) error {
	if p.gather == nil {
		return nil
	}
	began := time.Now()
	outcome := p.gather.Wait(ctx)
	waited := time.Since(began)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	refused := outcome.Enforce(p.name, p.selection)
	p.report(ctx, outcome, waited, refused)
	if refused != nil {
		return refused
	}
	if err := p.gather.Tie(ctx, outcome, target); err != nil {
		err = fmt.Errorf("referrers of %s could not be kept: %w", p.name, err)
		if len(p.selection.Required()) > 0 || p.selection.OnError() == policy.Fail {
			return err
		}
		log.G(ctx).WithError(err).Warn("referrers: the image goes on without")
		p.outcome = metrics.Unkept
	}
	return nil
}

func (p *pull) close() {
	if p.gather != nil {
		p.gather.Close()
	}
	if p.prefetch != nil {
		p.prefetch.close()
	}
	if s, ok := p.src.(*source.Source); ok {
		s.Close()
	}
}
