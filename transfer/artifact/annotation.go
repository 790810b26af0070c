package artifact

import (
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// IsDescriptive reports whether an annotation says what a referrer is, and does nothing:
// it may stay with a descriptor that leaves the node. Others name images
// (io.containerd.image.name, org.opencontainers.image.ref.name), tie content to it
// (io.containerd.manifest.subject, org.opencontainers.image.referrer.subject) or become
// labels of the collector (containerd.io/…), and the document that has them comes from
// the network.
func IsDescriptive(annotation string) bool {
	return slices.Contains(Annotations, annotation) || slices.Contains(descriptive, annotation)
}

var descriptive = []string{
	"in-toto.io/predicate-type", // the in-toto attestation specification, "Bundle"
	ocispec.AnnotationCreated,
}
