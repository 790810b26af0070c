package artifact

import (
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// MaxDescriptors is how many descriptors of one JSON array are read: the entries of
	// a listing, the layers of a manifest, the manifests of an index. Four mebibytes of
	// "{}" would become hundreds of mebibytes of descriptors.
	MaxDescriptors = 1000
	// MaxAnnotations is how many bytes of JSON a manifest's annotations may have.
	MaxAnnotations = 64 << 10
	// MaxTelling is how long the value of a descriptor's annotation may be, in bytes, to
	// be believed: those that tell something are addresses of a few dozen.
	MaxTelling = 255
	// MaxInline is how many bytes a descriptor may carry inline. Longer content is
	// fetched: a hundred manifests are in memory until the last of their blobs is in.
	MaxInline = 8 << 10
)

// ParseDescriptor reads one descriptor, strictly. The error is errdefs.ErrInvalidArgument.
func ParseDescriptor(data []byte) (ocispec.Descriptor, error) {
	desc, err := readDescriptor(data)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("descriptor: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return desc, nil
}

// readDescriptor reads what is used of a descriptor. URLs and platforms are not even
// built. With an error, the descriptor has the fields that could be read.
func readDescriptor(value jsontext.Value) (d ocispec.Descriptor, err error) {
	err = readObject(value, members{
		"mediaType":    into(&d.MediaType),
		"artifactType": into(&d.ArtifactType),
		"digest":       into(&d.Digest),
		"size":         into(&d.Size),
		"annotations":  readTelling(&d.Annotations),
		"data":         readInline(&d.Data),
	})
	return d, err
}

// readTelling reads those annotations that tell an artifact's set: a listing may have any
// number, and is held in memory. Where a value is too long there are none, lest the rest
// be read without it: a descriptor that tells nothing leaves it to the manifest.
func readTelling(into *map[string]string) func(jsontext.Value) error {
	return func(value jsontext.Value) error {
		switch {
		case isNull(value):
			return nil
		case len(value) > MaxAnnotations && value.Kind() != '{':
			return fmt.Errorf("%s is no object", value.Kind())
		case len(value) > MaxAnnotations: // they tell nothing, but must be readable
			if err := checkUnread(value); err != nil {
				return fmt.Errorf("it holds %w", err)
			}
			return nil
		}
		var all map[string]string
		if err := json.Unmarshal(value, &all); err != nil {
			return err
		}
		for key, text := range all {
			switch {
			case !slices.Contains(Annotations, key):
				delete(all, key)
			case len(text) > MaxTelling:
				return nil
			}
		}
		if len(all) > 0 {
			*into = all
		}
		return nil
	}
}

// readInline reads the content within a descriptor. What is no base64, or too long, is
// none: the content can be fetched all the same.
func readInline(into *[]byte) func(jsontext.Value) error {
	return func(value jsontext.Value) error {
		if err := checkUnread(value); err != nil {
			return fmt.Errorf("it holds %w", err)
		}
		var text string
		if len(value) > base64.StdEncoding.EncodedLen(MaxInline)+len(`""`) || json.Unmarshal(value, &text) != nil || text == "" {
			return nil
		}
		if data, err := base64.StdEncoding.DecodeString(text); err == nil {
			*into = data
		}
		return nil
	}
}

// descriptors are those of an array of a manifest.
type descriptors struct {
	list    []ocispec.Descriptor
	more    bool // the array holds more than MaxDescriptors
	present bool // the document has the array, if only as null
}

func (d *descriptors) read(value jsontext.Value) error {
	d.present = true
	return readArray(value, func(element jsontext.Value) (bool, error) {
		if len(d.list) == MaxDescriptors {
			d.more = true
			return false, nil
		}
		desc, err := readDescriptor(element)
		if err != nil {
			return false, fmt.Errorf("descriptor %d: %w", len(d.list)+1, err)
		}
		d.list = append(d.list, desc)
		return true, nil
	})
}
