package gate

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

const (
	// maxRemembered is how many images' verdicts are remembered, and maxSubjects of how many
	// subjects one may be made.
	maxRemembered = 1024
	maxSubjects   = 256
	// maxAge is how long one is remembered: certificates end without a file being written.
	maxAge = time.Minute
)

// memory remembers verdicts, in this process alone. One counts as long as the image has the
// same names, no trust has changed, and the same is tied to each subject that it was made of;
// rules do not change while the process lives.
type memory struct {
	mu    sync.Mutex
	known map[memoryKey]remembered
}

// memoryKey is the digest of a question: an image may have any number of names.
type memoryKey [sha256.Size]byte

func keyOf(ctx context.Context, q question) (k memoryKey) {
	namespace, _ := namespaces.Namespace(ctx)
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q\n", namespace, q.image.Digest, q.image.Config)
	for _, r := range q.records {
		fmt.Fprintf(h, "%q %q\n", r.name, r.target.Digest)
	}
	h.Sum(k[:0])
	return k
}

type remembered struct {
	verdicts   []named
	subjects   []judge.Subject
	generation uint64
	at         time.Time
}

// recall returns the verdicts on the question that still count.
func (m *memory) recall(ctx context.Context, store stored.Store, q question) ([]named, bool) {
	m.mu.Lock()
	r, ok := m.known[keyOf(ctx, q)]
	m.mu.Unlock()
	if !ok || r.generation != q.generation || time.Since(r.at) > maxAge {
		return nil, false
	}
	for _, s := range r.subjects {
		info, err := store.Info(ctx, s.Digest)
		if err != nil || labels.Fingerprint(info.Labels) != s.Fingerprint {
			return nil, false
		}
	}
	return r.verdicts, true
}

// keep remembers verdicts.
func (m *memory) keep(ctx context.Context, q question, verdicts []named, subjects []judge.Subject) {
	if len(subjects) > maxSubjects {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = map[memoryKey]remembered{}
	}
	k := keyOf(ctx, q)
	if _, ok := m.known[k]; !ok && len(m.known) >= maxRemembered {
		m.forget()
	}
	m.known[k] = remembered{verdicts, subjects, q.generation, time.Now()}
}

// forget drops the oldest verdict. It is for those who hold m.mu.
func (m *memory) forget() {
	var oldest memoryKey
	var at time.Time
	for k, r := range m.known {
		if at.IsZero() || r.at.Before(at) {
			oldest, at = k, r.at
		}
	}
	delete(m.known, oldest)
}
