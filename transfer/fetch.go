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
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
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
	q, err := t.newQuery(ctx, src, locked(config.Progress))
	if err != nil {
		return err
	}
	defer q.close()
	ctx = registry.WithRecorder(ctx, &q.recorder)

	name, root, err := q.storedImage(ctx)
	if err != nil {
		return err
	}
	q.send(fmt.Sprintf("Fetching referrers of %s", q.src))
	if err := q.governGather(ctx, name, root, gather.Config{NoPrune: true}); err != nil {
		return err
	}
	if q.gather == nil { // nothing is taken, so that nothing is asked
		return dst.Send(q.explanation(ctx, root.Digest, nil, nil))
	}
	manifests, err := q.addStored(ctx, root, dst)
	if err != nil {
		return err
	}
	began := time.Now()
	out := q.gather.Wait(ctx)
	waited := time.Since(began)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if q.judged, err = q.verdict(ctx, out); err != nil {
		return err
	}
	q.noteVerdict(ctx, q.judged)
	q.report(ctx, out, waited, q.refusedBy(out))
	if err := q.gather.Tie(ctx, out, root); err != nil {
		return fmt.Errorf("referrers of %s could not be kept: %w", name, err)
	}
	q.publishChanges(ctx)
	q.send(fmt.Sprintf("Fetched referrers of %s", q.src))
	return dst.Send(q.explanation(ctx, root.Digest, out, manifests.platformOf))
}

// storedImage returns the image that the source names with its digest, under its own
// name: logs, rules and labels are not to show the digest that a tag stood for.
func (q *query) storedImage(ctx context.Context) (string, ocispec.Descriptor, error) {
	named := q.opened
	spec, err := reference.Parse(named.Image())
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	dgst := spec.Digest()
	if dgst == "" {
		return "", ocispec.Descriptor{}, fmt.Errorf("image %s: name it with the digest that is stored, as in %s@sha256:...: %w", named.Image(), named.Image(), errdefs.ErrInvalidArgument)
	}
	if _, err := q.t.config.Store.Info(ctx, dgst); err != nil {
		return "", ocispec.Descriptor{}, fmt.Errorf("image %s is not stored; pull it, which brings its referrers: %w", named.Image(), err)
	}
	_, root, err := q.resolve(ctx)
	if tag, _, _ := strings.Cut(spec.Object, "@"); tag != "" {
		return spec.Locator + ":" + tag, root, err
	}
	return named.Image(), root, err
}

// addStored tells the gather of those manifests of the image's index that are
// stored: to others nothing could be tied.
func (q *query) addStored(ctx context.Context, root ocispec.Descriptor, dst *explain.FetchDestination) (*imageManifests, error) {
	var wanted []ocispec.Platform
	if !dst.AllPlatforms() {
		wanted = orDefault(dst.Platforms())
	}
	t, err := q.addManifests(ctx, root, wanted, func(ctx context.Context, desc ocispec.Descriptor) bool {
		_, err := q.t.config.Store.Info(ctx, desc.Digest)
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	if t.manifests == 0 && len(dst.Platforms()) > 0 {
		return nil, fmt.Errorf("no manifest of image %s for %s is stored; pull the image for that platform: %w", q.name, platformNames(dst.Platforms()), errdefs.ErrNotFound)
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

// send tells the client how far the fetch is, as containerd's pull does.
func (q *query) send(event string) {
	if q.progress != nil {
		q.progress(transfer.Progress{Event: event})
	}
}
