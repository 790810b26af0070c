package artifact

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/go-json-experiment/json/jsontext"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Index is a listing: an image index whose entries are the referrers of a subject.
type Index struct {
	MediaType string  // that it says of itself: an image index's, or ""
	Entries   []Entry // at most MaxDescriptors
	// More says that the index holds more than Entries.
	More bool
}

// Entry is a descriptor in a listing. Its digest, size and types are claims.
type Entry struct {
	ocispec.Descriptor
	// Err says what is wrong within the entry. Fields that cannot be read are empty
	// then.
	Err error
}

// ParseIndex reads an OCI image index. What is wrong within an entry refuses that entry
// alone. What lacks the array "manifests", or says that it is something else, is no
// index: the error is errdefs.ErrInvalidArgument.
func ParseIndex(data []byte) (*Index, error) {
	var (
		index   Index
		version int
		present bool
	)
	err := readDocument(data, members{
		"schemaVersion": into(&version),
		"mediaType":     into(&index.MediaType),
		"manifests": func(value jsontext.Value) error {
			present = true
			return readArray(value, func(element jsontext.Value) (bool, error) {
				if len(index.Entries) == MaxDescriptors {
					index.More = true
					return false, nil
				}
				desc, err := readDescriptor(element)
				desc.Data = nil // of no use in a listing, of which many may be held
				index.Entries = append(index.Entries, Entry{desc, err})
				return true, nil
			})
		},
	})
	switch {
	case err != nil:
		return nil, err
	case index.MediaType != "" && index.MediaType != ocispec.MediaTypeImageIndex:
		return nil, fmt.Errorf("not an image index but %.80q: %w", index.MediaType, errdefs.ErrInvalidArgument)
	case version != 0 && version != 2:
		return nil, fmt.Errorf("image index of schemaVersion %d, only 2 is known: %w", version, errdefs.ErrInvalidArgument)
	case !present:
		return nil, fmt.Errorf("not an image index: it has no manifests: %w", errdefs.ErrInvalidArgument)
	}
	return &index, nil
}
