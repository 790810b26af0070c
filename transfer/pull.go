package transfer

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/ahead"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/metrics"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
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
		t.config.Metrics.Pull(metrics.Failed)
		return err
	}
	defer p.close()
	p.expect(ctx)
	to := destination{dst}
	err = t.config.Local.Transfer(ctx, &pullSource{ImageFetcher: p.src, p: p, unpacks: to.UnpackPlatforms()}, &pullStore{destination: to, p: p}, transfer.WithProgress(progress))
	if refused := p.refused(); refused != nil {
		p.concludeRefusal(ctx, refused)
		err = refused // as it is, whatever was put around it
	}
	t.config.Metrics.Pull(p.ended(err))
	return err
}

// pull is one pull's state.
type pull struct {
	*query
	cannotAsk error          // why no registry is asked for referrers, or nil
	prefetch  *prefetch      // nil where the image was not there
	ahead     *ahead.Fetcher // nil where no layer is opened ahead
	ending    metrics.Ending // "" until the referrers are in, or given up
	held      held
}

func (t *Transferrer) newPull(ctx context.Context, src transfer.ImageFetcher, progress transfer.ProgressFunc) (*pull, error) {
	q, err := t.newQuery(ctx, src, progress)
	if errdefs.IsFailedPrecondition(err) {
		return &pull{query: &query{t: t, src: src, progress: progress}, cannotAsk: err}, nil
	}
	if err != nil {
		return nil, err
	}
	return &pull{query: q}, nil
}

// expect prepares for an image that is not there, which its source gets with a
// request less, or for one that is, whose referrers are asked for at once.
func (p *pull) expect(ctx context.Context) {
	if p.cannotAsk != nil || p.t.config.Images == nil {
		return
	}
	image, err := p.t.config.Images.Get(ctx, p.opened.Image())
	switch {
	case errdefs.IsNotFound(err):
		if spec, err := reference.Parse(p.opened.Image()); err == nil && spec.Digest() != "" {
			if _, err := p.t.config.Store.Info(ctx, spec.Digest()); err == nil {
				return // its manifest is there, under another name
			}
		}
		p.opened.ResolveByGet()
	case err == nil:
		p.prefetch = p.prefetchAnswers(ctx, image)
	}
}

// expected is what will be selected if the image's name does not change as it is resolved,
// empty where that is not known.
func (p *pull) expected() *policy.Selection {
	if p.cannotAsk != nil {
		return nil
	}
	spec, err := reference.Parse(p.opened.Image())
	if err != nil {
		return nil
	}
	selection, err := p.selects(spec.Locator)
	if err != nil {
		return nil // it is said when the image is resolved
	}
	return selection
}

// resolved begins to gather. The context is that of the wrapped service's pull.
func (p *pull) resolved(ctx context.Context, name string, root ocispec.Descriptor) error {
	wanted, err := p.govern(ctx, name, root.Digest)
	switch {
	case err != nil:
		return err
	case p.selection.Denied():
		return p.deny()
	case !wanted:
		return nil
	case p.cannotAsk != nil:
		return p.pullWithoutReferrers(ctx)
	case p.prefetch == nil:
		return p.startGather(ctx, root, gather.Config{})
	}
	p.prefetch.start()
	return p.start(ctx, root, gather.Config{Repository: p.prefetch})
}

// pullWithoutReferrers lets the pull of a source that is cannotAsk go on without referrers, unless its
// rule needs to know of them.
func (p *pull) pullWithoutReferrers(ctx context.Context) error {
	if p.selection.Verify() == policy.VerifyEnforce {
		return p.refuse(fmt.Sprintf("image %s is refused: %s verifies it, and its referrers cannot be asked for: %v", p.name, p.selection.RuleName(), p.cannotAsk))
	}
	needs := ""
	if required := p.selection.Required(); len(required) > 0 {
		needs = "requires " + strings.Join(required, ", ")
	} else if p.selection.OnError() == policy.Fail {
		needs = `has on_error = "fail"`
	}
	if needs != "" {
		p.ending = metrics.Refused
		return fmt.Errorf("the referrers of image %s cannot be asked for, and %s %s: %w", p.name, p.selection.RuleName(), needs, p.cannotAsk)
	}
	p.ending = metrics.Unknown
	log.G(ctx).WithField("image", p.name).WithError(p.cannotAsk).Warn("referrers: the image is pulled without, since they cannot be asked for")
	return nil
}

// finish waits for the referrers, reports whether the pull may succeed, and if so ties
// what came. A pull that is refused leaves the labels of an image that is there
// already as they are.
func (p *pull) finish(ctx context.Context, target ocispec.Descriptor) error {
	if p.gather == nil {
		return nil
	}
	began := time.Now()
	out := p.gather.Wait(ctx)
	waited := time.Since(began)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	refused, err := p.judge(ctx, out, target)
	if err != nil {
		return err
	}
	p.ending = p.report(ctx, out, waited, refused)
	if refused != nil {
		p.markMissing(ctx, out)
		return refused
	}
	if err := p.gather.Tie(ctx, out, target); err != nil {
		err = fmt.Errorf("referrers of %s could not be kept: %w", p.name, err)
		if len(p.selection.Required()) > 0 || p.selection.OnError() == policy.Fail {
			return err
		}
		log.G(ctx).WithError(err).Warn("referrers: the image goes on without")
		p.ending = metrics.Unkept
		return nil
	}
	p.publishChanges(ctx)
	return nil
}

// markMissing keeps what is known against an image that is refused.
func (p *pull) markMissing(ctx context.Context, out *outcome.Outcome) {
	if err := p.gather.MarkMissing(ctx, out); err != nil {
		log.G(ctx).WithError(err).Warn("referrers: what the registry withdrew could not be marked")
		return
	}
	p.publishChanges(ctx)
}

// judge judges the image over all that came, whatever was said while its layers were
// withheld, and returns why a rule refuses it.
func (p *pull) judge(ctx context.Context, out *outcome.Outcome, target ocispec.Descriptor) (refused, err error) {
	v, err := p.verdict(ctx, out)
	if err != nil {
		return nil, err
	}
	if v != nil {
		if v.Result == verdict.Verified && target.Digest != p.root {
			v.Result, v.Reason = verdict.Refused, p.converted()
		}
		p.noteVerdict(ctx, v)
		p.showSigners(ctx, v)
		if v.Result == verdict.Refused && v.Mode == policy.VerifyEnforce {
			return refusal{v.Reason + p.remains()}, nil
		}
		if v.Result == verdict.Refused {
			log.G(ctx).WithField("image", p.name).WithField("digest", p.root).Warnf("referrers: the image is not verified, and verify = %q lets it pass: %s", policy.VerifyWarn, v.Reason)
		}
	}
	return out.Enforce(p.name, p.selection), nil
}

// ended is what became of a pull that returns err.
func (p *pull) ended(err error) metrics.Ending {
	switch {
	case p.ending == metrics.Refused:
		return metrics.Refused
	case err != nil:
		return metrics.Failed
	case p.ending == "":
		return metrics.Unselected
	}
	return p.ending
}

func (p *pull) close() {
	if p.ahead != nil {
		p.ahead.Close()
	}
	p.query.close()
	if p.prefetch != nil {
		p.prefetch.close()
	}
}

// The wrapped service sees a pull's source and destination through these two.

// pullSource is the image's source, watched for the moment it is resolved. Its Fetcher is in
// layers_ahead.go.
type pullSource struct {
	transfer.ImageFetcher
	p       *pull
	opts    []transfer.ImageResolverOption
	unpacks []transfer.UnpackConfiguration // of the destination
}

var _ transfer.ImageResolverOptionSetter = (*pullSource)(nil)

func (s *pullSource) Resolve(ctx context.Context) (string, ocispec.Descriptor, error) {
	asking := ctx
	if expected := s.p.expected(); !expected.Empty() {
		asking = registry.WithReferrersAhead(ctx, expected.Verify() == policy.VerifyEnforce && s.p.prefetch == nil)
	}
	name, desc, err := s.ImageFetcher.Resolve(asking)
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	return name, desc, s.p.resolved(ctx, name, desc)
}

// SetResolverOptions implements transfer.ImageResolverOptionSetter. The options
// hand over the download slots that all pulls of the daemon share. Fetcher passes them on,
// when the image is resolved: resolving waits for no slot. The gather reads through a client of
// its own in any case, so that a referrer that hangs holds none.
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
			children = d.p.pulled(desc, children)
			d.p.addChildren(desc, children, wanted, &d.attested)
			if err := d.p.readIndexes(ctx, children, d.Platforms()); err != nil {
				return nil, err
			}
			if err := d.p.withhold(ctx, desc, children, wanted); err != nil {
				return nil, err
			}
			if d.p.ahead != nil && images.IsManifestType(desc.MediaType) {
				d.p.ahead.Expect(children)
			}
		}
		return children, err
	}
}

// Store implements transfer.ImageStorer. The image's content is complete when it
// is called; no record is written of an image that lacks what is required.
func (d *pullStore) Store(ctx context.Context, desc ocispec.Descriptor, store images.Store) ([]images.Image, error) {
	if d.p.ahead != nil {
		d.p.ahead.End()
	}
	if err := d.p.finish(ctx, desc); err != nil {
		return nil, err
	}
	// A client may store the image under names of other repositories, which have rules of their own.
	records := &judgedRecords{Store: store, t: d.p.t, platforms: d.Platforms(), except: d.p.name}
	imgs, err := d.ImageStorer.Store(ctx, desc, records)
	if records.refused != nil {
		d.p.ending = metrics.Refused
		return nil, records.refused
	}
	return imgs, err
}
