package artifact

import (
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifestSize is the most that a manifest, an index or one page of a listing
// may hold, in bytes, decoded: the 4 MiB that registries must accept at least (OCI
// distribution-spec, "Pushing Manifests").
const MaxManifestSize = 4 << 20

// MaxTypeLength is how long a media type or artifact type may be: RFC 6838 allows
// 127 characters before and after the slash.
const MaxTypeLength = 255

// MediaTypeArtifactManifest is the manifest of a release candidate of OCI image-spec
// 1.1, which older versions of oras and notation wrote: its blobs are what layers are
// elsewhere, and it has no config.
const MediaTypeArtifactManifest = "application/vnd.oci.artifact.manifest.v1+json"

// IsManifest reports whether a media type is that of a manifest, which an index is not.
func IsManifest(mediaType string) bool {
	return images.IsManifestType(mediaType) || mediaType == MediaTypeArtifactManifest
}

// IsIndex reports whether a media type is that of an index.
func IsIndex(mediaType string) bool { return images.IsIndexType(mediaType) }

// IsReferrer reports whether what has the media type can be a referrer: a manifest or
// an index.
func IsReferrer(mediaType string) bool { return IsManifest(mediaType) || IsIndex(mediaType) }

// Check reports whether a descriptor may be fetched at all: its digest is well
// formed and of an algorithm that can be verified, its types are no longer than
// types are, and its size is from 1 to limit. It must pass before the digest
// becomes part of a URL. The error is errdefs.ErrInvalidArgument, or
// errdefs.ErrResourceExhausted over the limit.
func Check(desc ocispec.Descriptor, limit int64) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %.80q: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	if n := max(len(desc.MediaType), len(desc.ArtifactType)); n > MaxTypeLength {
		return fmt.Errorf("%s: type of %d characters: %w", desc.Digest, n, errdefs.ErrInvalidArgument)
	}
	if desc.Size <= 0 {
		return fmt.Errorf("%s: size %d: %w", desc.Digest, desc.Size, errdefs.ErrInvalidArgument)
	}
	if desc.Size > limit {
		return fmt.Errorf("%s: size %d is over the limit of %d bytes: %w", desc.Digest, desc.Size, limit, errdefs.ErrResourceExhausted)
	}
	return nil
}

// Verify reports whether the data is what the descriptor, whose digest must be
// valid, promises. The error is errdefs.ErrFailedPrecondition.
func Verify(data []byte, desc ocispec.Descriptor) error {
	if int64(len(data)) != desc.Size {
		return fmt.Errorf("%d bytes received, %d expected: %w", len(data), desc.Size, errdefs.ErrFailedPrecondition)
	}
	return VerifyDigest(data, desc.Digest)
}

// VerifyDigest reports whether the data has the digest, which must be valid. The error
// is errdefs.ErrFailedPrecondition.
func VerifyDigest(data []byte, dgst digest.Digest) error {
	if actual := dgst.Algorithm().FromBytes(data); actual != dgst {
		return fmt.Errorf("content has digest %s: %w", actual, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// Plain returns what identifies the content of a descriptor. Annotations come from the
// network, and would reach names of ingests and labels.
func Plain(desc ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
}

// IsEmpty reports whether content has no bytes, and the digest of none. No other size
// of 0 is believed.
func IsEmpty(desc ocispec.Descriptor) bool {
	return desc.Size == 0 && desc.Digest.Validate() == nil && desc.Digest.Algorithm().FromBytes(nil) == desc.Digest
}

// Inline returns the content that a descriptor carries, or that every empty descriptor
// has (OCI image-spec, "Guidance for an Empty Descriptor"). It is nil where there is
// none, or where it is not what the descriptor promises.
func Inline(desc ocispec.Descriptor) []byte {
	switch {
	case IsEmpty(desc):
		return []byte{}
	case desc.Digest == ocispec.DescriptorEmptyJSON.Digest:
		desc.Data = ocispec.DescriptorEmptyJSON.Data
	}
	if len(desc.Data) == 0 || desc.Digest.Validate() != nil || Verify(desc.Data, desc) != nil {
		return nil
	}
	return desc.Data
}
