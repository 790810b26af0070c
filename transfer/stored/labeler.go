package stored

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// Labeler writes the labels of content in one store. What it writes depends on what is
// there: which key ties a referrer on what the others tie, and repositories that content
// came from are joined. So all who write labels of one store share one Labeler, whose
// changes follow one another.
type Labeler struct {
	store content.Manager
	mu    sync.Mutex
}

// NewLabeler returns the Labeler of a store.
func NewLabeler(store content.Manager) *Labeler { return &Labeler{store: store} }

// Tie ties referrers to a subject that is stored, whose life they then share, and
// sets what more returns for the labels that the subject has already; an empty
// value removes a label. Without referrers, a subject that is not stored is passed
// over. more may be nil.
func (l *Labeler) Tie(ctx context.Context, subject digest.Digest, referrers []digest.Digest, more func(existing map[string]string) map[string]string) error {
	err := l.Change(ctx, subject, func(info content.Info) (map[string]string, error) {
		add := labels.TieLabels(info.Labels, referrers...)
		if more != nil {
			maps.Copy(add, more(info.Labels))
		}
		return add, nil
	})
	if errdefs.IsNotFound(err) && len(referrers) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("subject %s: %w", subject, err)
	}
	return nil
}

// Change sets the labels that change returns for what the content is and has, where they
// differ; an empty value removes one.
func (l *Labeler) Change(ctx context.Context, dgst digest.Digest, change func(content.Info) (map[string]string, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, err := l.store.Info(ctx, dgst)
	if err != nil {
		return err
	}
	add, err := change(info)
	if err != nil {
		return err
	}
	var fields []string
	for k, v := range add {
		if info.Labels[k] != v {
			fields = append(fields, "labels."+k)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	if _, err := l.store.Update(ctx, content.Info{Digest: info.Digest, Labels: add}, fields...); err != nil {
		return fmt.Errorf("label %s: %w", info.Digest, err)
	}
	return nil
}

// Add sets labels of content.
func (l *Labeler) Add(ctx context.Context, dgst digest.Digest, add map[string]string) error {
	return l.Change(ctx, dgst, func(content.Info) (map[string]string, error) { return add, nil })
}
