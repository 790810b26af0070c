package push

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// ensureListed has the registry list the subject's referrers. Those that it
// took note of it lists by itself; the others go into the fallback tag, all in one
// update (OCI distribution-spec, "Pushing Manifests with Subject").
func (p *pusher) ensureListed(ctx context.Context, subject digest.Digest, referrers []*referrer) error {
	if err := p.confirm(ctx, subject, referrers); err != nil {
		return err
	}
	var entries []ocispec.Descriptor
	for _, r := range referrers {
		if r == nil || !r.namesSubject || r.listed {
			continue
		}
		entries = append(entries, r.entry)
	}
	if len(entries) == 0 {
		return nil
	}
	return p.updateTag(ctx, subject, entries)
}

// confirm asks whether referrers that the registry had are listed: a push may have ended
// between a manifest and the tag. One that is not, or may not be, is put again, since only
// the answer to that (OCI-Subject) tells whether the registry keeps the listing itself.
func (p *pusher) confirm(ctx context.Context, subject digest.Digest, referrers []*referrer) error {
	var listed map[digest.Digest]bool
	for _, r := range referrers {
		if r == nil || !r.namesSubject || !r.existed {
			continue
		}
		if listed == nil {
			listing, err := p.config.Repository.List(ctx, subject)
			if err != nil {
				return err
			}
			listed = map[digest.Digest]bool{}
			for _, d := range listing.Referrers {
				listed[d.Digest] = true
			}
		}
		if r.listed = listed[r.Digest]; r.listed {
			continue
		}
		data, _, err := p.read(ctx, artifact.Plain(r.Descriptor()))
		if err == nil {
			err = p.put(ctx, subject, r, data)
		}
		if err != nil {
			return failed(subject, r.Referrer, err)
		}
	}
	return nil
}

// entryOf returns the descriptor for the fallback tag (OCI distribution-spec, "Listing
// Referrers").
func entryOf(r stored.Referrer, m *artifact.Manifest) ocispec.Descriptor {
	entry := artifact.Plain(r.Descriptor())
	entry.ArtifactType, entry.Annotations = m.ListedType(), m.Annotations
	return entry
}
