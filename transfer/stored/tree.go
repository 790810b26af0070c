package stored

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// tree reads what labels tie together. Labels can lead in circles, which digests
// cannot: what stands above a referrer is not read beneath it again.
type tree struct {
	store   Store
	above   map[digest.Digest]bool
	read    map[digest.Digest]*tied // each manifest once, however often it is tied
	entries int
	// repository is that of the image, whose listing marks what it lacks; "" for any.
	repository string
}

// tied is what is tied to some subject.
type tied struct {
	referrer Referrer
	labels   map[string]string
}

func newTree(store Store) *tree {
	return &tree{store: store, above: map[digest.Digest]bool{}, read: map[digest.Digest]*tied{}}
}

// of returns what the labels tie to the subject, and to that. What is tied but
// gone is left out: the store may have been pruned by hand. What is damaged is
// shown without a type.
func (t *tree) of(ctx context.Context, subject digest.Digest, subjectLabels map[string]string, depth int) ([]Referrer, error) {
	out := []Referrer{}
	if depth == 0 {
		return out, nil
	}
	t.above[subject] = true
	defer delete(t.above, subject)
	for _, dgst := range labels.Referrers(subjectLabels) {
		if t.above[dgst] {
			continue
		}
		if t.entries++; t.entries > maxEntries {
			return nil, fmt.Errorf("more than %d referrers: %w", maxEntries, errdefs.ErrResourceExhausted)
		}
		found, err := t.find(ctx, dgst)
		if err = ended(ctx, err); err != nil {
			return nil, err
		}
		if found == nil {
			continue
		}
		r := found.referrer
		r.Subject = subject
		r.Unlisted = labels.UnlistedSince(subjectLabels, dgst, t.repository)
		if r.Referrers, err = t.of(ctx, dgst, found.labels, depth-1); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// find reads what is tied under a digest. It returns nil where that is gone.
func (t *tree) find(ctx context.Context, dgst digest.Digest) (*tied, error) {
	if found, ok := t.read[dgst]; ok {
		return found, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	info, err := t.store.Info(ctx, dgst)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	var found *tied
	if err == nil {
		found = &tied{t.referrer(ctx, info), info.Labels}
	}
	t.read[dgst] = found
	return found, nil
}

func (t *tree) referrer(ctx context.Context, info content.Info) Referrer {
	r := Referrer{Digest: info.Digest, Size: info.Size, Annotations: map[string]string{}, ArtifactType: info.Labels[labels.ArtifactTypeKey]}
	if m, err := Manifest(ctx, t.store, ocispec.Descriptor{Digest: info.Digest, Size: info.Size}); err == nil {
		r.MediaType = m.MediaType
		if r.ArtifactType == "" {
			r.ArtifactType = m.ArtifactType
		}
		if m.Annotations != nil {
			r.Annotations = m.Annotations
		}
	}
	return r
}
