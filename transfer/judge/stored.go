package judge

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// FromStore returns what reads evidence from a content store.
func FromStore(store stored.Store) ReadFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
		return stored.ReadBlob(ctx, store, desc, evidence.MaxSize)
	}
}

// ManifestFromStore returns what reads manifests of referrers from a content store.
func ManifestFromStore(store stored.Store) ReadFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
		return stored.ReadBlob(ctx, store, desc, artifact.MaxManifestSize)
	}
}

// AddStored examines what is tied to a subject that is stored. What the image's repository is
// marked to list no longer does not count: who withdraws a signature revokes it. keep, if not nil, says which of the
// others count.
func (c *Case) AddStored(ctx context.Context, store stored.Store, subject ocispec.Descriptor, keep func(subject, referrer digest.Digest) bool) error {
	return c.addStored(ctx, store, subject, keep, true)
}

func (c *Case) addStored(ctx context.Context, store stored.Store, subject ocispec.Descriptor, keep func(subject, referrer digest.Digest) bool, image bool) error {
	info, err := store.Info(ctx, subject.Digest)
	if err != nil {
		return fmt.Errorf("subject %s: %w", subject.Digest, err)
	}
	c.look(subject.Digest, info.Labels)
	for _, dgst := range labels.Referrers(info.Labels) {
		switch since := labels.UnlistedSince(info.Labels, dgst, c.config.Repository); {
		case c.full() || c.early && c.Holds():
			return nil
		case !since.IsZero():
			c.noteOnce(subject.Digest, dgst, "it was withdrawn: the registry lists it no longer, since "+since.UTC().Format(time.RFC3339))
			continue
		case keep != nil && !keep(subject.Digest, dgst):
			continue
		}
		desc, m, err := readReferrer(ctx, store, dgst)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			c.noteOnce(subject.Digest, dgst, "it cannot be read: "+err.Error())
			continue
		}
		c.Examine(ctx, subject, desc, m)
		if image && evidence.HasStatement(m) { // who signed it vouches for what it says
			if err := c.addStored(ctx, store, desc, keep, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// look remembers what was tied to a subject when it was looked at.
func (c *Case) look(subject digest.Digest, of map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looked = append(c.looked, Subject{subject, labels.Fingerprint(of)})
}

// Subjects returns the subjects that AddStored has looked at, and the referrers whose own
// signatures it has.
func (c *Case) Subjects() []Subject {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.looked)
}

func readReferrer(ctx context.Context, store stored.Store, dgst digest.Digest) (ocispec.Descriptor, *artifact.Manifest, error) {
	info, err := store.Info(ctx, dgst)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	desc := ocispec.Descriptor{Digest: dgst, Size: info.Size}
	data, err := stored.ReadBlob(ctx, store, desc, artifact.MaxManifestSize)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	m, err := artifact.Parse(data, "")
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	desc.MediaType = m.MediaType
	return desc, m, nil
}

// noteOnce is note for a referrer that has not been examined, nor noted.
func (c *Case) noteOnce(subject, dgst digest.Digest, why string) {
	c.mu.Lock()
	known := slices.ContainsFunc(c.pieces, func(p verdict.Piece) bool { return p.Subject == subject && p.Referrer == dgst })
	c.mu.Unlock()
	if !known {
		c.note(subject, dgst, why)
	}
}
