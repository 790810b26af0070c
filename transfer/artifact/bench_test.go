package artifact

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// BenchmarkParseIndex reads listings of so many referrers.
func BenchmarkParseIndex(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		index := ocispec.Index{MediaType: indexType}
		for i := range n {
			index.Manifests = append(index.Manifests, ocispec.Descriptor{
				MediaType: manifestType, ArtifactType: "application/vnd.dev.sigstore.bundle.v0.3+json",
				Digest: digest.FromString(fmt.Sprint(i)), Size: 800,
				Annotations: map[string]string{"org.opencontainers.image.created": "2026-01-01T00:00:00Z", "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1"},
			})
		}
		data, err := json.Marshal(index)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if index, err := ParseIndex(data); err != nil || len(index.Entries) != n {
					b.Fatal(err)
				}
			}
		})
	}
}
