package artifact

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifest is what a referrer's manifest or index says.
type Manifest struct {
	MediaType string
	// ArtifactType is the manifest's own, or its config's media type where
	// that is empty (OCI image-spec, "Guidelines for Artifact Usage"). What
	// cosign wrote before either existed is told by its layers.
	ArtifactType string
	// OwnType is the manifest's field artifactType, "" where it has none.
	OwnType     string
	Annotations map[string]string
	// Subject is what the artifact refers to, nil where it names nothing.
	Subject *ocispec.Descriptor
	// Blobs are the config and the layers of a manifest, in this order. Their
	// inline data, and that of Manifests, is unverified.
	Blobs []ocispec.Descriptor
	// HasConfig says that the first of Blobs is the config.
	HasConfig bool
	// Manifests are those of an index.
	Manifests []ocispec.Descriptor
	// Hollow says that there is no content: neither config nor layer but the empty
	// descriptor, or no manifest in the index.
	Hollow bool
}

// document is a manifest or index as it is written.
type document struct {
	schemaVersion            int
	mediaType, artifactType  string
	config, subject          *ocispec.Descriptor
	layers, blobs, manifests descriptors
	annotations              map[string]string
}

func (d *document) read(data []byte) error {
	one := func(into **ocispec.Descriptor) func(jsontext.Value) error {
		return func(value jsontext.Value) error {
			if isNull(value) {
				return nil
			}
			desc, err := readDescriptor(value)
			*into = &desc
			return err
		}
	}
	var long int
	err := readDocument(data, members{
		"schemaVersion": into(&d.schemaVersion),
		"mediaType":     into(&d.mediaType),
		"artifactType":  into(&d.artifactType),
		"config":        one(&d.config),
		"layers":        d.layers.read,
		"blobs":         d.blobs.read,
		"manifests":     d.manifests.read,
		"subject":       one(&d.subject),
		"annotations": func(value jsontext.Value) error {
			if len(value) > MaxAnnotations {
				long = len(value)
				return nil
			}
			return into(&d.annotations)(value)
		},
	})
	if err == nil && long > 0 {
		return fmt.Errorf("annotations have %d bytes, the limit is %d: %w", long, MaxAnnotations, errdefs.ErrResourceExhausted)
	}
	return err
}

// kind returns the media type that a document without one has: it was optional until
// OCI image-spec 1.1.
func (d *document) kind() string {
	switch {
	case d.mediaType != "":
		return d.mediaType
	case d.manifests.present:
		return ocispec.MediaTypeImageIndex
	}
	return ocispec.MediaTypeImageManifest
}

// ambiguous reports whether the document has fields of another kind. What is both is read
// as one by some and as the other by others (CVE-2021-41190).
func (d *document) ambiguous(mediaType string) bool {
	image := d.config != nil || d.layers.present
	switch {
	case IsIndex(mediaType):
		return image || d.blobs.present || !d.manifests.present
	case mediaType == MediaTypeArtifactManifest:
		return image || d.manifests.present
	}
	return d.manifests.present || d.blobs.present
}

// Parse reads a manifest or index of the given media type; "" stands for what the
// document says itself. More than MaxDescriptors layers or manifests are an
// errdefs.ErrResourceExhausted; anything else that is wrong is an
// errdefs.ErrInvalidArgument.
func Parse(data []byte, mediaType string) (*Manifest, error) {
	if mediaType != "" && !IsReferrer(mediaType) {
		return nil, fmt.Errorf("%.80q is neither a manifest nor an index: %w", mediaType, errdefs.ErrInvalidArgument)
	}
	var d document
	if err := d.read(data); err != nil {
		return nil, err
	}
	if mediaType == "" {
		mediaType = d.kind()
	}
	switch {
	case !IsReferrer(mediaType):
		return nil, fmt.Errorf("%.80q is neither a manifest nor an index: %w", mediaType, errdefs.ErrInvalidArgument)
	case d.schemaVersion != 0 && d.schemaVersion != 2:
		return nil, fmt.Errorf("schemaVersion %d, only 2 is known: %w", d.schemaVersion, errdefs.ErrInvalidArgument)
	case d.mediaType != "" && d.mediaType != mediaType:
		return nil, fmt.Errorf("the manifest calls itself %.80q, its descriptor %q: %w", d.mediaType, mediaType, errdefs.ErrInvalidArgument)
	case d.ambiguous(mediaType):
		return nil, fmt.Errorf("%q with the fields of another kind: %w", mediaType, errdefs.ErrInvalidArgument)
	case d.layers.more || d.blobs.more || d.manifests.more:
		return nil, fmt.Errorf("more than %d layers or manifests: %w", MaxDescriptors, errdefs.ErrResourceExhausted)
	}
	m := &Manifest{MediaType: mediaType, ArtifactType: d.artifactType, OwnType: d.artifactType, Annotations: d.annotations, Manifests: d.manifests.list}
	if d.subject != nil {
		d.subject.Data = nil
		m.Subject = d.subject
	}
	if d.config != nil {
		m.Blobs, m.HasConfig = append(m.Blobs, *d.config), true
		if m.ArtifactType == "" {
			m.ArtifactType = d.config.MediaType
		}
	}
	m.Blobs = append(append(m.Blobs, d.layers.list...), d.blobs.list...)
	m.Hollow = !slices.ContainsFunc(slices.Concat(m.Blobs, m.Manifests), func(d ocispec.Descriptor) bool { return d.Digest != ocispec.DescriptorEmptyJSON.Digest })
	if len(m.ArtifactType) > MaxTypeLength {
		return nil, fmt.Errorf("artifact type of %d characters: %w", len(m.ArtifactType), errdefs.ErrInvalidArgument)
	}
	if legacy := cosignType(m.ArtifactType, d.layers.list); legacy != "" && d.artifactType == "" {
		m.ArtifactType = legacy
	}
	return m, nil
}

// cosignType tells what cosign v1 and v2 stored under its tags: manifests that
// look like images, with layers that give them away.
func cosignType(artifactType string, layers []ocispec.Descriptor) string {
	if !images.IsConfigType(artifactType) || len(layers) == 0 {
		return ""
	}
	switch mediaType := layers[0].MediaType; {
	case mediaType == "application/vnd.dev.cosign.simplesigning.v1+json":
		return TypeCosignSignature
	case mediaType == "application/vnd.dsse.envelope.v1+json":
		return TypeCosignAttestation
	case SetOfType(mediaType) == SetSBOMs, strings.HasPrefix(mediaType, "spdx+"):
		return TypeCosignSBOM
	}
	return ""
}

// Layers returns the blobs of the manifest but its config.
func (m *Manifest) Layers() []ocispec.Descriptor {
	if m.HasConfig {
		return m.Blobs[1:]
	}
	return m.Blobs
}

// Children returns the digests of all that the manifest names, those that are well
// formed, each once.
func (m *Manifest) Children() []digest.Digest {
	var out []digest.Digest
	seen := map[digest.Digest]bool{}
	for _, d := range slices.Concat(m.Blobs, m.Manifests) {
		if !seen[d.Digest] && d.Digest.Validate() == nil {
			out = append(out, d.Digest)
		}
		seen[d.Digest] = true
	}
	return out
}

// ListedType is the artifact type that a listing shows: the field artifactType, or the
// config's media type where that is empty (OCI distribution-spec, "Listing Referrers").
func (m *Manifest) ListedType() string {
	if m.OwnType == "" && m.HasConfig {
		return m.Blobs[0].MediaType
	}
	return m.OwnType
}

// Untyped reports whether the manifest does not say what kind of artifact it is: it looks
// like an image.
func (m *Manifest) Untyped() bool {
	return m.ArtifactType == "" || images.IsConfigType(m.ArtifactType)
}

// Referrer returns what policy decides by.
func (m *Manifest) Referrer() Referrer {
	return Referrer{ArtifactType: m.ArtifactType, Annotations: m.Annotations, Hollow: m.Hollow}
}
