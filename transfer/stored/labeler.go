package stored

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	store       content.Manager
	transaction Transaction
	mu          sync.Mutex
}

// Transaction calls f with a context in which what the store writes is one transaction of
// its database, committed where f returns nil.
type Transaction func(ctx context.Context, f func(ctx context.Context) error) error

// NewLabeler returns the Labeler of a store.
func NewLabeler(store content.Manager) *Labeler {
	return &Labeler{store: store, transaction: func(ctx context.Context, f func(context.Context) error) error { return f(ctx) }}
}

// SetTransaction has the Labeler write many subjects' labels in transactions of the store:
// each syncs the disk. It must be called before the Labeler is used.
func (l *Labeler) SetTransaction(t Transaction) { l.transaction = t }

// Tying says what to tie to a subject.
type Tying struct {
	Subject   digest.Digest
	Referrers []digest.Digest
	// More returns further labels to set, for those that the subject has already; an empty
	// value removes a label. It must use no other context. nil sets none.
	More func(ctx context.Context, existing map[string]string) map[string]string
}

// Tie ties referrers to a subject that is stored, whose life they then share. Without
// referrers, a subject that is not stored is passed over.
func (l *Labeler) Tie(ctx context.Context, subject digest.Digest, referrers ...digest.Digest) error {
	return l.TieAll(ctx, []Tying{{Subject: subject, Referrers: referrers}})
}

// maxTied is how many subjects one transaction labels. Whoever else writes to the
// database waits for it.
const maxTied = 100

// TieAll is Tie for many subjects. One that fails does not keep the others from being tied.
func (l *Labeler) TieAll(ctx context.Context, all []Tying) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for some := range slices.Chunk(all, maxTied) {
		failed := make([]error, len(some))
		err := l.transaction(ctx, func(ctx context.Context) error {
			for i, t := range some {
				failed[i] = l.tie(ctx, t)
			}
			return nil
		})
		errs = append(append(errs, failed...), err)
	}
	return errors.Join(errs...)
}

// tie refuses a referrer that is gone: where another pull has untied it since this one looked,
// it may have been collected.
func (l *Labeler) tie(ctx context.Context, t Tying) error {
	for _, r := range t.Referrers {
		if _, err := l.store.Info(ctx, r); err != nil {
			return fmt.Errorf("referrer %s of subject %s: %w", r, t.Subject, err)
		}
	}
	err := l.change(ctx, t.Subject, func(info content.Info) (map[string]string, error) {
		add := labels.TieLabels(info.Labels, t.Referrers...)
		if t.More != nil {
			maps.Copy(add, t.More(ctx, info.Labels))
		}
		return add, nil
	})
	if errdefs.IsNotFound(err) && len(t.Referrers) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("subject %s: %w", t.Subject, err)
	}
	return nil
}

// Change sets the labels that change returns for what the content is and has, where they
// differ; an empty value removes one.
func (l *Labeler) Change(ctx context.Context, dgst digest.Digest, change func(content.Info) (map[string]string, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.change(ctx, dgst, change)
}

// change is for those who hold l.mu.
func (l *Labeler) change(ctx context.Context, dgst digest.Digest, change func(content.Info) (map[string]string, error)) error {
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
