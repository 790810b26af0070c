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

// labelMu serializes reading labels and adding to them: which key ties a referrer
// depends on what the others tie, and repositories that content came from are joined.
var labelMu sync.Mutex

// Tie ties referrers to a subject that is stored, whose life they then share, and
// sets what more returns for the labels that the subject has already; an empty
// value removes a label. Without referrers, a subject that is not stored is passed
// over. more may be nil.
func Tie(ctx context.Context, store content.Manager, subject digest.Digest, referrers []digest.Digest, more func(existing map[string]string) map[string]string) error {
	err := Relabel(ctx, store, subject, func(info content.Info) (map[string]string, error) {
		add := labels.Tie(info.Labels, referrers...)
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

// Relabel sets the labels that change returns for what the content is and has, where they
// differ; an empty value removes one. Changes of several pulls take turns.
func Relabel(ctx context.Context, store content.Manager, dgst digest.Digest, change func(content.Info) (map[string]string, error)) error {
	labelMu.Lock()
	defer labelMu.Unlock()
	info, err := store.Info(ctx, dgst)
	if err != nil {
		return err
	}
	add, err := change(info)
	if err != nil {
		return err
	}
	return Label(ctx, store, info, add)
}

// Label sets those labels that differ from what the content has; an empty value
// removes one.
func Label(ctx context.Context, store content.Manager, info content.Info, add map[string]string) error {
	var fields []string
	for k, v := range add {
		if info.Labels[k] != v {
			fields = append(fields, "labels."+k)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	if _, err := store.Update(ctx, content.Info{Digest: info.Digest, Labels: add}, fields...); err != nil {
		return fmt.Errorf("label %s: %w", info.Digest, err)
	}
	return nil
}
