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

// tieMu serializes reading a subject's labels and adding to them: which key
// ties a referrer hangs on what the others tie.
var tieMu sync.Mutex

// Tie ties referrers to a subject that is stored, whose life they then share, and
// sets what more returns for the labels that the subject has already; an empty
// value removes a label. Without referrers, a subject that is not stored is passed
// over. more may be nil.
func Tie(ctx context.Context, store content.Manager, subject digest.Digest, referrers []digest.Digest, more func(existing map[string]string) map[string]string) error {
	tieMu.Lock()
	defer tieMu.Unlock()
	info, err := store.Info(ctx, subject)
	if err != nil {
		if errdefs.IsNotFound(err) && len(referrers) == 0 {
			return nil
		}
		return fmt.Errorf("subject %s: %w", subject, err)
	}
	add := labels.Tie(info.Labels, referrers...)
	if more != nil {
		maps.Copy(add, more(info.Labels))
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
