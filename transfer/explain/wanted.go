package explain

import (
	"fmt"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// wanted is which manifests of a stored image a transfer is for.
type wanted struct {
	platforms    []ocispec.Platform
	allPlatforms bool
}

// Platforms returns the platforms that the client named.
func (w *wanted) Platforms() []ocispec.Platform { return w.platforms }

// AllPlatforms reports whether the transfer is for every manifest that is stored.
func (w *wanted) AllPlatforms() bool { return w.allPlatforms }

// read takes what a message says. The error is errdefs.ErrInvalidArgument.
func (w *wanted) read(names []string, all bool) (err error) {
	if w.platforms, err = parseAll(names); err != nil {
		return err
	}
	if w.allPlatforms = all; all && len(names) > 0 {
		return fmt.Errorf("a transfer for all platforms that names some: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}
