// Package artifact reads manifests and indexes from untrusted sources: what type
// of artifact they are, which subject they refer to and what content they name.
// It reads bounded bytes into bounded structures and does no I/O.
package artifact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// MaxDescriptors is how many descriptors of one JSON array are read.
const MaxDescriptors = 1000

// MaxTypeLength is how long a media type or artifact type may be: RFC 6838 allows
// 127 characters before and after the slash.
const MaxTypeLength = 255

// MaxAnnotations is how many bytes of JSON a manifest's annotations may have.
const MaxAnnotations = 64 << 10

// MaxTelling is how long the value of a descriptor's annotation may be, in bytes, to be
// believed: those that tell something are addresses of a few dozen.
const MaxTelling = 255

// MaxNesting is how deep the indexes within a referrer may lie.
const MaxNesting = 2

// Descriptors is a JSON array of descriptors, of which the first MaxDescriptors
// are read and the rest only counted for existing: four mebibytes of "{}" would
// become hundreds of mebibytes of descriptors.
type Descriptors struct {
	List []ocispec.Descriptor
	// More says that the array holds more than List.
	More bool
	// Present says that the JSON had the array, if only as null.
	Present bool
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *Descriptors) UnmarshalJSON(data []byte) error {
	*d = Descriptors{Present: true}
	if isNull(data) {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return errors.New("descriptors are not an array")
	}
	for dec.More() {
		if len(d.List) == MaxDescriptors {
			d.More = true
			return nil
		}
		var desc descriptor
		if err := dec.Decode(&desc); err != nil {
			return err
		}
		d.List = append(d.List, desc.descriptor())
	}
	return nil
}

func isNull(data []byte) bool { return bytes.Equal(bytes.TrimSpace(data), []byte("null")) }

// descriptor is what is read of an ocispec.Descriptor. URLs and platforms are not
// even built: nothing here uses them.
type descriptor struct {
	MediaType    string        `json:"mediaType"`
	ArtifactType string        `json:"artifactType"`
	Digest       digest.Digest `json:"digest"`
	Size         int64         `json:"size"`
	Annotations  telling       `json:"annotations"`
	Data         inline        `json:"data"`
}

func (d *descriptor) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, ArtifactType: d.ArtifactType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations, Data: d.Data}
}

// MaxInline is how many bytes a descriptor may carry inline. Longer content is
// fetched: a hundred manifests are in memory until the last of their blobs is in.
const MaxInline = 8 << 10

// inline is content within its descriptor. What is no base64, or too long, is none:
// the content can be fetched all the same.
type inline []byte

// UnmarshalJSON implements json.Unmarshaler.
func (i *inline) UnmarshalJSON(data []byte) error {
	*i = nil
	var text string
	if len(data) > base64.StdEncoding.EncodedLen(MaxInline)+len(`""`) || json.Unmarshal(data, &text) != nil || text == "" {
		return nil
	}
	if decoded, err := base64.StdEncoding.DecodeString(text); err == nil {
		*i = decoded
	}
	return nil
}

// telling are those annotations of a descriptor that policy looks at. A listing
// may have any number, and is held in memory. Where a value is too long there are none,
// lest the rest be read without it: a descriptor that tells nothing leaves it to the
// manifest.
type telling map[string]string

// UnmarshalJSON implements json.Unmarshaler.
func (t *telling) UnmarshalJSON(data []byte) error {
	*t = nil
	if isNull(data) || len(data) > MaxAnnotations { // then the manifest decides, if any
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return errors.New("annotations are not an object")
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		var value string
		if err := dec.Decode(&value); err != nil {
			return err
		}
		if k, ok := key.(string); ok && slices.Contains(policy.Annotations, k) {
			if len(value) > MaxTelling {
				*t = nil
				return nil
			}
			if *t == nil {
				*t = telling{}
			}
			(*t)[k] = value
		}
	}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (d Descriptors) MarshalJSON() ([]byte, error) { return json.Marshal(d.List) }

// Index is an image index as a listing is one, or as a referrer may be one.
type Index struct {
	SchemaVersion int         `json:"schemaVersion"`
	MediaType     string      `json:"mediaType"`
	Manifests     Descriptors `json:"manifests"`
}

// ParseIndex reads an OCI image index. What lacks the array "manifests", or says
// that it is something else, is none.
func ParseIndex(data []byte) (*Index, error) {
	var index Index
	if err := unmarshal(data, &index); err != nil {
		return nil, err
	}
	switch {
	case index.MediaType != "" && index.MediaType != ocispec.MediaTypeImageIndex:
		return nil, fmt.Errorf("not an image index but %.80q: %w", index.MediaType, errdefs.ErrInvalidArgument)
	case index.SchemaVersion != 0 && index.SchemaVersion != 2:
		return nil, fmt.Errorf("image index of schemaVersion %d, only 2 is known: %w", index.SchemaVersion, errdefs.ErrInvalidArgument)
	case !index.Manifests.Present:
		return nil, fmt.Errorf("not an image index: it has no manifests: %w", errdefs.ErrInvalidArgument)
	}
	for i := range index.Manifests.List {
		index.Manifests.List[i].Data = nil // of no use in a listing, of which many may be held
	}
	return &index, nil
}

// Manifest is what a referrer's manifest or index says.
type Manifest struct {
	MediaType string
	// ArtifactType is the manifest's own, or its config's media type where
	// that is empty (OCI image-spec, "Guidelines for Artifact Usage"). What
	// cosign wrote before either existed is told by its layers.
	ArtifactType string
	Annotations  map[string]string
	// Subject is what the artifact refers to, nil where it names nothing.
	Subject *ocispec.Descriptor
	// Blobs are the config and the layers of a manifest, in this order. Their
	// inline data, and that of Manifests, is unverified.
	Blobs []ocispec.Descriptor
	// Manifests are those of an index.
	Manifests []ocispec.Descriptor
	// Hollow says that there is no content: neither config nor layer but the empty
	// descriptor, or no manifest in the index.
	Hollow bool
}

// Parse reads a manifest or index of the given media type. More than maxChildren
// layers or manifests are an errdefs.ErrResourceExhausted; anything else that is
// wrong is an errdefs.ErrInvalidArgument.
func Parse(data []byte, mediaType string, maxChildren int) (*Manifest, error) {
	if !images.IsManifestType(mediaType) && !images.IsIndexType(mediaType) {
		return nil, fmt.Errorf("%q is neither a manifest nor an index: %w", mediaType, errdefs.ErrInvalidArgument)
	}
	var raw struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		ArtifactType  string          `json:"artifactType"`
		Config        *descriptor     `json:"config"`
		Layers        Descriptors     `json:"layers"`
		Manifests     Descriptors     `json:"manifests"`
		Subject       *descriptor     `json:"subject"`
		Annotations   json.RawMessage `json:"annotations"`
	}
	if err := unmarshal(data, &raw); err != nil {
		return nil, err
	}
	index := images.IsIndexType(mediaType)
	switch {
	case raw.SchemaVersion != 0 && raw.SchemaVersion != 2:
		return nil, fmt.Errorf("schemaVersion %d, only 2 is known: %w", raw.SchemaVersion, errdefs.ErrInvalidArgument)
	case raw.MediaType != "" && raw.MediaType != mediaType:
		return nil, fmt.Errorf("the manifest calls itself %.80q, its descriptor %q: %w", raw.MediaType, mediaType, errdefs.ErrInvalidArgument)
	case index && (raw.Config != nil || raw.Layers.Present || !raw.Manifests.Present), !index && raw.Manifests.Present:
		// What is both is read as one by some and as the other by others
		// (CVE-2021-41190).
		return nil, fmt.Errorf("%q with the fields of another kind: %w", mediaType, errdefs.ErrInvalidArgument)
	}
	m := &Manifest{MediaType: mediaType, ArtifactType: raw.ArtifactType}
	if len(raw.Annotations) > MaxAnnotations {
		return nil, fmt.Errorf("annotations have %d bytes, the limit is %d: %w", len(raw.Annotations), MaxAnnotations, errdefs.ErrResourceExhausted)
	}
	if raw.Annotations != nil && !isNull(raw.Annotations) {
		if err := unmarshal(raw.Annotations, &m.Annotations); err != nil {
			return nil, fmt.Errorf("annotations: %w", err)
		}
	}
	if raw.Subject != nil {
		subject := raw.Subject.descriptor()
		subject.Data = nil
		m.Subject = &subject
	}
	children := raw.Layers
	if index {
		children = raw.Manifests
		m.Manifests = raw.Manifests.List
	} else {
		if raw.Config != nil {
			m.Blobs = append(m.Blobs, raw.Config.descriptor())
			if m.ArtifactType == "" {
				m.ArtifactType = raw.Config.MediaType
			}
		}
		m.Blobs = append(m.Blobs, raw.Layers.List...)
	}
	if most := min(maxChildren, MaxDescriptors); children.More || len(children.List) > most {
		return nil, fmt.Errorf("more than %d layers or manifests: %w", most, errdefs.ErrResourceExhausted)
	}
	m.Hollow = !slices.ContainsFunc(slices.Concat(m.Blobs, m.Manifests), func(d ocispec.Descriptor) bool { return d.Digest != ocispec.DescriptorEmptyJSON.Digest })
	if len(m.ArtifactType) > MaxTypeLength {
		return nil, fmt.Errorf("artifact type of %d characters: %w", len(m.ArtifactType), errdefs.ErrInvalidArgument)
	}
	if legacy := cosignType(m.ArtifactType, raw.Layers.List); legacy != "" && raw.ArtifactType == "" {
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
		return policy.TypeCosignSignature
	case mediaType == "application/vnd.dsse.envelope.v1+json":
		return policy.TypeCosignAttestation
	case policy.SetOf(policy.Referrer{ArtifactType: mediaType}) == policy.SetSBOMs, strings.HasPrefix(mediaType, "spdx+"):
		return policy.TypeCosignSBOM
	}
	return ""
}

// Children returns the digests of all that the manifest names, those that are well
// formed.
func (m *Manifest) Children() []digest.Digest {
	var out []digest.Digest
	for _, list := range [][]ocispec.Descriptor{m.Blobs, m.Manifests} {
		for _, d := range list {
			if d.Digest.Validate() == nil {
				out = append(out, d.Digest)
			}
		}
	}
	return out
}

// Referrer returns what policy needs to know.
func (m *Manifest) Referrer() policy.Referrer {
	return policy.Referrer{ArtifactType: m.ArtifactType, Annotations: m.Annotations, Hollow: m.Hollow}
}

// unmarshal decodes exactly one JSON object.
func unmarshal(data []byte, v any) error {
	if isNull(data) {
		return fmt.Errorf("decode JSON: null is no object: %w", errdefs.ErrInvalidArgument)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("decode JSON: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("decode JSON: data after the end: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}
