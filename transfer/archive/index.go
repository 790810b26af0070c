package archive

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// annotationsSubject are those by which tools say in index.json that an entry is a
// referrer, or the listing of them, and of what: containerd and Docker Engine; layouts of
// registries that keep the referrers API's answers.
var annotationsSubject = []string{
	images.AnnotationManifestSubject,
	"org.opencontainers.image.referrer.subject",
	"org.olareg.referrer.subject",
}

// fallbackTag is a name that ends in the tag under which a subject's listing lies where
// there is no referrers API (OCI distribution-spec, "Referrers Tag Schema").
var fallbackTag = regexp.MustCompile(`(^|:)[a-z0-9+._-]{1,32}-[0-9a-f]{64}$`)

// CheckIndex reads an archive's index.json strictly: containerd takes an entry in another
// reading than the tool that verified the archive might. The error is
// errdefs.ErrInvalidArgument.
func CheckIndex(ctx context.Context, store stored.Store, index ocispec.Descriptor) error {
	data, err := stored.ReadManifest(ctx, store, index)
	if err != nil {
		return fmt.Errorf("%s of the archive: %w", ocispec.ImageIndexFile, err)
	}
	parsed, err := artifact.ParseIndex(data)
	if err != nil {
		return fmt.Errorf("%s of the archive: %w", ocispec.ImageIndexFile, err)
	}
	for i, entry := range parsed.Entries {
		if entry.Err != nil {
			return fmt.Errorf("%s of the archive, entry %d: %w: %w", ocispec.ImageIndexFile, i+1, entry.Err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Subject returns what an entry of index.json refers to, by the archive's word; "" for an
// entry that is no referrer.
func Subject(entry ocispec.Descriptor) digest.Digest {
	for _, key := range annotationsSubject {
		if subject := entry.Annotations[key]; subject != "" {
			return digest.Digest(subject)
		}
	}
	return ""
}

// IsListing reports whether an entry of index.json is the listing of a subject under its
// fallback tag: what it lists are referrers, and it is no image.
func IsListing(entry ocispec.Descriptor) bool {
	return artifact.IsIndex(entry.MediaType) && fallbackTag.MatchString(Name(entry))
}

// Name returns the name that an entry of index.json has, "" for none.
func Name(entry ocispec.Descriptor) string {
	if name := entry.Annotations[images.AnnotationImageName]; name != "" {
		return name
	}
	return strings.TrimSpace(entry.Annotations[ocispec.AnnotationRefName])
}
