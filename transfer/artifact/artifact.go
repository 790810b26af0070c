// Package artifact reads manifests and indexes that strangers wrote: what type
// of artifact they are, which subject they refer to and what content they name.
// It reads bounded bytes into bounded structures and does no I/O.
package artifact

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// MaxDescriptors is how many descriptors of one JSON array are read.
const MaxDescriptors = 1000

// Descriptors is a JSON array of descriptors, of which the first MaxDescriptors
// are read and the rest only counted for existing: four mebibytes of "{}" would
// become hundreds of descriptors' worth of memory for each of their bytes.
// Inline data, URLs and platforms are dropped; nothing here uses them.
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
	if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
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
		var desc ocispec.Descriptor
		if err := dec.Decode(&desc); err != nil {
			return err
		}
		desc.Data, desc.URLs, desc.Platform = nil, nil, nil
		d.List = append(d.List, desc)
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
		return nil, fmt.Errorf("not an image index but %q: %w", index.MediaType, errdefs.ErrInvalidArgument)
	case index.SchemaVersion != 0 && index.SchemaVersion != 2:
		return nil, fmt.Errorf("image index of schemaVersion %d, only 2 is known: %w", index.SchemaVersion, errdefs.ErrInvalidArgument)
	case !index.Manifests.Present:
		return nil, fmt.Errorf("not an image index: it has no manifests: %w", errdefs.ErrInvalidArgument)
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
	// Blobs are the config and the layers of a manifest, in this order.
	Blobs []ocispec.Descriptor
	// Manifests are those of an index.
	Manifests []ocispec.Descriptor
}

// Parse reads a manifest or index of the given media type. More than maxChildren
// layers or manifests are an errdefs.ErrResourceExhausted; anything else that is
// wrong is an errdefs.ErrInvalidArgument.
func Parse(data []byte, mediaType string, maxChildren int) (*Manifest, error) {
	if !images.IsManifestType(mediaType) && !images.IsIndexType(mediaType) {
		return nil, fmt.Errorf("%q is neither a manifest nor an index: %w", mediaType, errdefs.ErrInvalidArgument)
	}
	var raw struct {
		MediaType    string              `json:"mediaType"`
		ArtifactType string              `json:"artifactType"`
		Config       *ocispec.Descriptor `json:"config"`
		Layers       Descriptors         `json:"layers"`
		Manifests    Descriptors         `json:"manifests"`
		Subject      *ocispec.Descriptor `json:"subject"`
		Annotations  map[string]string   `json:"annotations"`
	}
	if err := unmarshal(data, &raw); err != nil {
		return nil, err
	}
	if raw.MediaType != "" && raw.MediaType != mediaType {
		return nil, fmt.Errorf("the manifest calls itself %q, its descriptor %q: %w", raw.MediaType, mediaType, errdefs.ErrInvalidArgument)
	}
	m := &Manifest{MediaType: mediaType, ArtifactType: raw.ArtifactType, Annotations: raw.Annotations, Subject: raw.Subject}
	children := raw.Layers
	if images.IsIndexType(mediaType) {
		children = raw.Manifests
		m.Manifests = raw.Manifests.List
	} else {
		if raw.Config != nil {
			m.Blobs = append(m.Blobs, *raw.Config)
			if m.ArtifactType == "" {
				m.ArtifactType = raw.Config.MediaType
			}
		}
		m.Blobs = append(m.Blobs, raw.Layers.List...)
	}
	if children.More || len(children.List) > maxChildren {
		return nil, fmt.Errorf("more than %d layers or manifests: %w", maxChildren, errdefs.ErrResourceExhausted)
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

// Referrer returns what policy needs to know.
func (m *Manifest) Referrer() policy.Referrer {
	return policy.Referrer{ArtifactType: m.ArtifactType, Annotations: m.Annotations}
}

// unmarshal decodes exactly one JSON value.
func unmarshal(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("decode JSON: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("decode JSON: data after the end: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}
