package evidence

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// Layer is a blob of a referrer that is evidence, by what its manifest says.
type Layer struct {
	Format     Format
	Descriptor ocispec.Descriptor
	// PredicateType is what the manifest says that the blob attests, "" where it does not
	// say. It is not signed: what it leads to is not to be missed for more than the time.
	PredicateType string
}

// Annotations that say what a layer attests.
const (
	annotationInToto = "in-toto.io/predicate-type" // BuildKit, and the in-toto specification
	annotationCosign = "predicateType"             // of cosign's layers
)

// Of returns the evidence that a referrer's manifest names, [MaxPerReferrer] pieces at most.
// read returns the manifest's bytes, and is called where annotations of layers belong to the
// evidence. The error is errdefs.ErrResourceExhausted where there is more, and else that of
// read, or of what it read.
func Of(m *artifact.Manifest, read func() ([]byte, error)) ([]Layer, error) {
	layers := m.Layers()
	if slices.ContainsFunc(layers, annotated) {
		data, err := read()
		if err != nil {
			return nil, err
		}
		if layers, err = artifact.ReadLayers(data); err != nil {
			return nil, err
		}
	}
	var out []Layer
	for _, desc := range slices.Backward(layers) { // cosign adds the newest behind the others
		format := formatOf(desc.MediaType)
		if format == "" {
			continue
		}
		if len(out) == MaxPerReferrer {
			return out, fmt.Errorf("it has more than %d signatures and attestations: %w", MaxPerReferrer, errdefs.ErrResourceExhausted)
		}
		out = append(out, Layer{Format: format, Descriptor: desc, PredicateType: predicateOf(format, desc, m)})
	}
	return out, nil
}

// annotated reports whether annotations belong to a layer as evidence.
func annotated(desc ocispec.Descriptor) bool {
	return slices.Contains([]Format{CosignSignature, DSSE, Statement}, formatOf(desc.MediaType))
}

// HasStatement reports whether the manifest names an in-toto statement that is not signed
// itself: who signed the manifest vouches for it.
func HasStatement(m *artifact.Manifest) bool {
	for _, desc := range m.Layers() {
		if formatOf(desc.MediaType) == Statement {
			return true
		}
	}
	return false
}

func formatOf(mediaType string) Format {
	switch mime := artifact.NormalizeType(mediaType); {
	case artifact.IsBundle(mime):
		return Bundle
	case mime == "application/vnd.dev.cosign.simplesigning.v1+json":
		return CosignSignature
	case mime == "application/vnd.dsse.envelope.v1+json", strings.HasPrefix(mime, "application/vnd.in-toto") && strings.HasSuffix(mime, "+dsse"):
		return DSSE
	case mime == "application/jose+json", mime == "application/cose":
		return Notation
	case mime == "application/vnd.in-toto+json":
		return Statement
	}
	return ""
}

func predicateOf(format Format, desc ocispec.Descriptor, m *artifact.Manifest) string {
	switch format {
	case Bundle:
		return m.Annotations[artifact.AnnotationPredicate]
	case DSSE, Statement:
		if p := desc.Annotations[annotationInToto]; p != "" {
			return p
		}
		return desc.Annotations[annotationCosign]
	}
	return ""
}
