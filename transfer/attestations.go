package transfer

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// attestations are the attestation manifests of an image's indexes, noted before
// the destination's filter drops them: their platform is unknown/unknown.
type attestations struct {
	mu    sync.Mutex
	noted []ocispec.Descriptor
}

func (a *attestations) note(h images.HandlerFunc) images.HandlerFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h(ctx, desc)
		if err == nil && artifact.IsIndex(desc.MediaType) {
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, child := range children {
				if artifact.IsBuildKitEntry(child) {
					a.noted = append(a.noted, child)
				}
			}
		}
		return children, err
	}
}

// of returns those that name the manifest, with their type.
func (a *attestations) of(manifest digest.Digest) []ocispec.Descriptor {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []ocispec.Descriptor
	for _, desc := range a.noted {
		if artifact.BuildKitSubject(desc) == manifest {
			desc.ArtifactType = artifact.TypeBuildKitAttestation
			out = append(out, desc)
		}
	}
	return out
}
