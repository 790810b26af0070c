package transfer

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/transfer"
	ociregistry "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// query is what a pull, an explanation and a fetch have in common: an image in a registry,
// whose referrers are asked for under the selection that governs it.
type query struct {
	t               *Transferrer
	src             transfer.ImageFetcher
	opened          *source.Source // src, nil where its registry cannot be asked
	clientSelection *api.Selection // the client's selection, nil where it sent none
	progress        transfer.ProgressFunc
	recorder        registry.Recorder // of explain and fetch

	// Set by govern, once the image is resolved.
	name      string
	root      digest.Digest
	selection *policy.Selection

	gather       *gather.Gather   // nil until it is started, and where nothing is wanted
	verification *judge.Case      // nil where the rule does not verify
	judged       *verdict.Verdict // of explain and fetch, nil where the rule does not verify
}

func (t *Transferrer) newQuery(ctx context.Context, src transfer.ImageFetcher, progress transfer.ProgressFunc) (*query, error) {
	opened, err := t.open(ctx, src)
	if err != nil {
		return nil, err
	}
	return &query{t: t, src: opened, opened: opened, progress: progress, clientSelection: opened.Claim()}, nil
}

// open makes a source of the daemon's of one end of a transfer. The error is
// errdefs.ErrFailedPrecondition where its registry cannot be asked as the image's own
// requests ask it.
func (t *Transferrer) open(ctx context.Context, end any) (*source.Source, error) {
	var opened *source.Source
	var err error
	switch s := end.(type) {
	case *source.Source:
		if opened = s; !s.Opened() {
			opened, err = source.Open(ctx, s)
		}
	case *ociregistry.OCIRegistry:
		opened, err = source.Open(ctx, s)
	default:
		err = fmt.Errorf("a %T does not tell how its registry is asked, as a ociregistry.OCIRegistry does: %w", end, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return nil, err
	}
	opened.UseSessions(&t.sessions)
	return opened, nil
}

// govern finds the selection that governs the image. It reports whether there is anything
// to ask for.
func (q *query) govern(ctx context.Context, name string, root digest.Digest) (bool, error) {
	spec, err := reference.Parse(name)
	if err != nil {
		return false, err
	}
	q.name, q.root = name, root
	if q.selection, err = q.selects(spec.Locator); err != nil {
		return false, err
	}
	if q.selection.Empty() {
		log.G(ctx).WithField("image", name).WithField("selection", q.selection.RuleName()).Debug("referrers: nothing to take")
		return false, nil
	}
	return true, nil
}

// selects returns what is asked for of the repository.
func (q *query) selects(repository string) (*policy.Selection, error) {
	s, err := q.t.config.Policy.Select(repository, q.clientSelection.GetArtifactTypes())
	if err != nil {
		return nil, err
	}
	return s.WithDepth(int(q.clientSelection.GetDepth()))
}

// repository returns the image's repository.
func (q *query) repository() (*registry.Repository, error) {
	r, err := q.opened.Repository()
	if err != nil {
		return r, err
	}
	r.OnRequest(q.t.config.Metrics.Request)
	r.SetNotices(&q.t.notices)
	r.SetCapabilities(&q.t.capabilities)
	r.SetAnswers(&q.t.answers)
	return r, nil
}

// start begins to gather under the selection that governs. The context is that of the whole
// operation. config has the registry, and how this gather differs from that of a pull.
func (q *query) start(ctx context.Context, root ocispec.Descriptor, config gather.Config) error {
	spec, err := reference.Parse(q.name)
	if err != nil {
		return err
	}
	config.Name, config.Selection, config.Progress = q.name, q.selection, q.progress
	config.Store, config.Labeler = q.t.config.Store, q.t.labeler
	config.Protect = q.t.protector(ctx)
	config.Limits, config.Cosign = q.t.config.Limits, q.t.config.Cosign
	q.openCase(ctx, root, spec.Locator, &config)
	q.gather = gather.New(ctx, config)
	q.gather.Image(root)
	return nil
}

// startGather opens the registry and starts the gather under the selection that governs.
func (q *query) startGather(ctx context.Context, root ocispec.Descriptor, config gather.Config) error {
	var err error
	if config.Repository, err = q.repository(); err != nil {
		return fmt.Errorf("referrers of %s: %w", q.name, err)
	}
	return q.start(ctx, root, config)
}

// governGather starts the gather if the rule that governs the image has anything to ask for.
func (q *query) governGather(ctx context.Context, name string, root ocispec.Descriptor, config gather.Config) error {
	wanted, err := q.govern(ctx, name, root.Digest)
	if err != nil || !wanted {
		return err
	}
	return q.startGather(ctx, root, config)
}

func (q *query) close() {
	if q.gather != nil {
		q.gather.Close()
	}
	if q.opened != nil {
		q.opened.Close()
	}
}
