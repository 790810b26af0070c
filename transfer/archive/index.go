package archive

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
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
// there is no referrers API (OCI distribution-spec, "Referrers Tag Schema"): the digest,
// cut to 64 digits.
var fallbackTag = regexp.MustCompile(`(?:^|:)(sha256|sha384|sha512)-([0-9a-f]{64})$`)

// cosignTag is a name that ends in one of the tags under which cosign v1 and v2 store what
// has no subject field.
var cosignTag = regexp.MustCompile(`(?:^|:)sha256-([0-9a-f]{64})\.(sig|att|sbom)$`)

// cosignTypes are what lies under cosign's tags.
var cosignTypes = map[string]string{
	"sig":  artifact.TypeCosignSignature,
	"att":  artifact.TypeCosignAttestation,
	"sbom": artifact.TypeCosignSBOM,
}

// CheckIndex reads an archive's index.json strictly: containerd takes an entry in another
// reading than the tool that verified the archive might. The error is
// errdefs.ErrInvalidArgument.
func CheckIndex(ctx context.Context, store stored.Store, index ocispec.Descriptor) error {
	data, err := stored.ReadManifest(ctx, store, index)
	if err == nil {
		err = checkEntries(data)
	}
	if err != nil {
		return fmt.Errorf("%s of the archive: %w", ocispec.ImageIndexFile, err)
	}
	return nil
}

// checkEntries reads an index of any number of entries.
func checkEntries(data []byte) error {
	index, err := artifact.ParseIndex(data)
	if err == nil {
		err = firstError(index, 0)
	}
	if err != nil || !index.More {
		return err
	}
	// What is behind those that ParseIndex reads, as many at a time.
	var all manifests
	if err := json.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("decode JSON: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	for first := artifact.MaxDescriptors; first < len(all.Manifests); first += artifact.MaxDescriptors {
		part := manifests{all.Manifests[first:min(first+artifact.MaxDescriptors, len(all.Manifests))]}
		if data, err = json.Marshal(part); err != nil {
			return err
		}
		if index, err = artifact.ParseIndex(data); err != nil {
			return err
		}
		if err := firstError(index, first); err != nil {
			return err
		}
	}
	return nil
}

// manifests are the entries of an index as they are written.
type manifests struct {
	Manifests []jsontext.Value `json:"manifests"`
}

// firstError returns what is wrong within an entry, of those that lie behind others.
func firstError(index *artifact.Index, behind int) error {
	for i, entry := range index.Entries {
		if entry.Err != nil {
			return fmt.Errorf("entry %d: %w: %w", behind+i+1, entry.Err, errdefs.ErrInvalidArgument)
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

// isListing reports whether an entry of index.json is the listing of a subject under its
// fallback tag: what it lists are referrers, and it is no image. Tools that mirror images
// by digest tag an image with its own.
func isListing(entry ocispec.Descriptor) bool {
	tag := fallbackTag.FindStringSubmatch(Name(entry))
	return tag != nil && artifact.IsIndex(entry.MediaType) &&
		!strings.HasPrefix(entry.Digest.String(), tag[1]+":"+tag[2])
}

// cosignSubject returns what an entry of index.json refers to by cosign's tag, and what
// artifact lies under that; "" for an entry that has another name.
func cosignSubject(entry ocispec.Descriptor) (subject digest.Digest, artifactType string) {
	tag := cosignTag.FindStringSubmatch(Name(entry))
	if tag == nil || !artifact.IsManifest(entry.MediaType) {
		return "", ""
	}
	return digest.NewDigestFromEncoded(digest.SHA256, tag[1]), cosignTypes[tag[2]]
}

// Name returns the name that an entry of index.json has, "" for none.
func Name(entry ocispec.Descriptor) string {
	if name := entry.Annotations[images.AnnotationImageName]; name != "" {
		return name
	}
	return strings.TrimSpace(entry.Annotations[ocispec.AnnotationRefName])
}
