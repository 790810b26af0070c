package referrers

import (
	"context"
	"maps"
	"slices"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// annotator adds to what the store tells of an image what only the other images and the daemon's
// rules do.
type annotator struct {
	client       *containerd.Client
	repositories map[digest.Digest]map[string]bool
	state        daemonState
}

// daemonState says whether the daemon can be asked about its rules.
type daemonState int

const (
	notAsked daemonState = iota
	hasRules
	hasNone // no active plugin
)

// newAnnotator knows the images by all their names.
func newAnnotator(client *containerd.Client, list []images.Image) *annotator {
	a := &annotator{client: client, repositories: map[digest.Digest]map[string]bool{}}
	for _, image := range list {
		if a.repositories[image.Target.Digest] == nil {
			a.repositories[image.Target.Digest] = map[string]bool{}
		}
		if spec, err := reference.Parse(image.Name); err == nil && !isDigest(image.Name) {
			a.repositories[image.Target.Digest][spec.Locator] = true
		}
	}
	return a
}

// annotate says which repositories have the image, where that is more than one, and of an image
// that was never asked about whether a rule selects its referrers.
func (a *annotator) annotate(ctx context.Context, image *stored.Image) {
	all := maps.Clone(a.repositories[image.Digest])
	if all == nil {
		all = map[string]bool{}
	}
	for _, s := range image.Subjects {
		if s.Repository != "" {
			all[s.Repository] = true
		}
	}
	if len(all) > 1 {
		image.Repositories = slices.Sorted(maps.Keys(all))
	}
	if image.Checked.IsZero() && a.asksDaemon(ctx) {
		v, err := verifyStored(ctx, a.client, image.Name, true, nil)
		image.Unselected = err == nil && v.Unselected // without an answer it was never asked, which is true as well
	}
}

func (a *annotator) asksDaemon(ctx context.Context) bool {
	if a.state == notAsked {
		if a.state = hasRules; whyInactive(ctx, a.client) != "" {
			a.state = hasNone
		}
	}
	return a.state == hasRules
}

// totalSize adds up the sizes of the referrers, each once.
func totalSize(referrers []stored.Referrer) int64 {
	var n int64
	for _, r := range flat(referrers) {
		n += r.Size + r.ContentSize
	}
	return n
}
