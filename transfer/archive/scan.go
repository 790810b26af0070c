package archive

import (
	"context"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// maxManifests is how many manifests and indexes of an archive are read to learn what
// refers to what.
const maxManifests = 10_000

// Contents are the manifests and indexes of an archive: those that its index.json names,
// and those that they name. What they call a config or a layer is none, whatever it looks
// like: nobody vouched for it as a manifest.
type Contents struct {
	subjects map[digest.Digest]digest.Digest // of each that was read; "" for none
	found    []ocispec.Descriptor            // those that have a subject
}

// Scan reads the manifests of an archive, of whose index.json the entries are. All
// content must be in the store.
func Scan(ctx context.Context, store stored.Store, entries []ocispec.Descriptor) (*Contents, error) {
	c := &Contents{subjects: map[digest.Digest]digest.Digest{}}
	seen := map[digest.Digest]bool{}
	var queue []ocispec.Descriptor
	add := func(descs []ocispec.Descriptor) {
		for _, desc := range descs {
			if !artifact.IsReferrer(desc.MediaType) || seen[desc.Digest] {
				continue
			}
			if len(seen) == maxManifests {
				log.G(ctx).Warnf("referrers: the archive names more than %d manifests; those behind them are taken for referrers only where its index.json says what they refer to", maxManifests)
				return
			}
			seen[desc.Digest] = true
			queue = append(queue, artifact.Plain(desc))
		}
	}
	add(entries)
	for ; len(queue) > 0; queue = queue[1:] {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		desc := queue[0]
		info, err := store.Info(ctx, desc.Digest)
		if err != nil {
			continue // of a platform that is not in the archive
		}
		desc.Size = info.Size
		m, err := stored.Manifest(ctx, store, desc)
		if err != nil {
			continue
		}
		c.add(desc, m)
		add(m.Manifests)
	}
	return c, nil
}

func (c *Contents) add(desc ocispec.Descriptor, m *artifact.Manifest) {
	c.subjects[desc.Digest] = ""
	if m.Subject == nil {
		return
	}
	c.subjects[desc.Digest] = m.Subject.Digest
	c.found = append(c.found, ocispec.Descriptor{
		MediaType: m.MediaType, Digest: desc.Digest, Size: desc.Size,
		Annotations: map[string]string{images.AnnotationManifestSubject: m.Subject.Digest.String()},
	})
}

// Sort tells the entries of index.json that may be images from those that are none:
// referrers, whatever name they have, and the listings under fallback tags. The third
// result is what refers to something, each annotated with its subject; where index.json
// says what an entry refers to, nothing else is believed of that.
func (c *Contents) Sort(entries []ocispec.Descriptor) (maybeImages, others, referrers []ocispec.Descriptor) {
	annotated := map[digest.Digest]bool{}
	for _, entry := range entries {
		switch subject, artifactType := cosignSubject(entry); {
		case Subject(entry) != "":
			annotated[entry.Digest] = true
			referrers = append(referrers, entry)
			others = append(others, entry)
		case c.has(subject):
			if c.subjects[entry.Digest] == "" {
				referrers = append(referrers, ocispec.Descriptor{
					MediaType: entry.MediaType, ArtifactType: artifactType, Digest: entry.Digest, Size: entry.Size,
					Annotations: map[string]string{images.AnnotationManifestSubject: subject.String()},
				})
			}
			others = append(others, entry)
		case isListing(entry), Name(entry) == "" && c.subjects[entry.Digest] != "":
			others = append(others, entry)
		default:
			maybeImages = append(maybeImages, entry)
		}
	}
	for _, desc := range c.found {
		if !annotated[desc.Digest] {
			referrers = append(referrers, desc)
		}
	}
	return maybeImages, others, referrers
}

// has reports whether the archive has the manifest.
func (c *Contents) has(dgst digest.Digest) bool {
	_, ok := c.subjects[dgst]
	return ok
}
