package artifact

import (
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// BuildKit puts the attestations of a platform manifest into the image's own index
// (BuildKit, "Image Attestation Storage"). BuildKitSubject tells such an entry of the
// index, IsBuildKitAttestation the manifest that it names.

// BuildKitSubject returns the manifest that an entry of an image's index attests, ""
// for an entry that is not BuildKit's. The annotation alone is not enough: a manifest
// that a platform matches, or one that names none, can be run, and must not get around
// what a rule requires by being called an attestation.
func BuildKitSubject(entry ocispec.Descriptor) digest.Digest {
	if !IsBuildKitEntry(entry) {
		return ""
	}
	return digest.Digest(entry.Annotations["vnd.docker.reference.digest"])
}

// IsBuildKitEntry reports whether an entry of an image's index is BuildKit's attestation
// manifest rather than a manifest that can be run.
func IsBuildKitEntry(entry ocispec.Descriptor) bool {
	return entry.Platform != nil && entry.Platform.OS == "unknown" && entry.Platform.Architecture == "unknown" &&
		entry.Annotations["vnd.docker.reference.type"] == "attestation-manifest"
}

// IsBuildKitAttestation reports whether a manifest is BuildKit's attestation: it calls
// itself that or nothing, and all its layers are in-toto statements. Nothing else that
// looks like an image has such layers.
func (m *Manifest) IsBuildKitAttestation() bool {
	if !m.Untyped() && m.ArtifactType != TypeBuildKitAttestation {
		return false
	}
	for _, layer := range m.Layers() {
		if !strings.HasPrefix(layer.MediaType, "application/vnd.in-toto") {
			return false
		}
	}
	return len(m.Layers()) > 0
}
