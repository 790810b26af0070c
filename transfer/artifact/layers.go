package artifact

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/go-json-experiment/json/jsontext"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ReadLayers reads the layers of a manifest with all their annotations, which Parse leaves out:
// cosign keeps signatures, certificates and log entries there. The manifest must be one that
// Parse accepts. Annotations of one layer over MaxAnnotations are an
// errdefs.ErrResourceExhausted; anything else that is wrong is an errdefs.ErrInvalidArgument.
func ReadLayers(data []byte) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	var long error
	err := readDocument(data, members{"layers": func(value jsontext.Value) error {
		return readArray(value, func(element jsontext.Value) (bool, error) {
			desc, err := readDescriptor(element)
			if err != nil {
				return false, err
			}
			desc.Annotations = nil
			err = readObject(element, members{"annotations": func(value jsontext.Value) error {
				if len(value) > MaxAnnotations {
					long = fmt.Errorf("annotations of layer %d have %d bytes, the limit is %d: %w", len(out)+1, len(value), MaxAnnotations, errdefs.ErrResourceExhausted)
					return nil
				}
				return into(&desc.Annotations)(value)
			}})
			out = append(out, desc)
			return err == nil && len(out) < MaxDescriptors, err
		})
	}})
	if err == nil {
		err = long
	}
	return out, err
}
