package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// A config and a layer are blobs, whatever they call themselves and whatever they look
// like: each operation takes them as they are, and what would be a signature if it were a
// manifest is none.
func TestLayerThatCallsItselfAManifest(t *testing.T) {
	for _, mediaType := range []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, artifact.MediaTypeArtifactManifest} {
		t.Run(mediaType, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			image := pushSmall(t, reg, "app", "v1", "image")
			subject := subjectOf(image.Descriptor)
			// What a reader that follows media types takes for a signature of the image, and
			// for an index that lists it.
			signature, err := json.Marshal(ocispec.Manifest{
				Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifact.TypeCosignSignature,
				Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{described("text/plain", "payload")}, Subject: &subject,
			})
			if err != nil {
				t.Fatal(err)
			}
			lister, err := json.Marshal(imageIndex(&subject, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(signature), Size: int64(len(signature))}))
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			var content []digest.Digest
			for i, blob := range []string{"no manifest at all", "{}", string(signature), string(lister)} {
				for name, m := range map[string]ocispec.Manifest{
					"config": {Config: described(mediaType, blob), Layers: []ocispec.Descriptor{described("text/plain", "payload")}},
					"layer":  {Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{described(mediaType, blob), described("text/plain", "payload")}},
				} {
					m.ArtifactType, m.Subject = fmt.Sprintf("application/vnd.example.%s%d", name, i), &subject
					desc, digests := pushArtifact(t, reg, m, blob, "payload", "{}")
					content = append(content, digests...)
					want = append(want, fmt.Sprintf("%s of %s: %s", desc.Digest, subject.Digest, m.ArtifactType))
				}
			}
			slices.Sort(want)

			d, other := startDaemon(t, active(pushTrue)), startDaemon(t, active(everything))
			name := reg.Host + "/app:v1"
			pull(t, d, name)
			pull(t, d, name)
			collect(t, d)
			if got := tied(ls(t, d, name).Referrers); !slices.Equal(got, want) {
				t.Errorf("tied are\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
			}
			if lost := damaged(t, d, content); len(lost) > 0 {
				t.Errorf("not stored: %v", lost)
			}
			referrers(t, d, "ls", name).want(t, 0).prints(t, "application/vnd.example.config0", "application/vnd.example.layer3")

			path := exportedFrom(t, d, name)
			wantWholeArchive(t, path)
			imported(t, other, path, name, image.Digest)
			if got := tied(ls(t, other, name).Referrers); !slices.Equal(got, want) {
				t.Errorf("an import ties\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
			}
			if lost := damaged(t, other, content); len(lost) > 0 {
				t.Errorf("not imported: %v", lost)
			}
			removed(t, other)

			for _, kind := range []registry.Kind{registry.Olareg, registry.Distribution} {
				to := startRegistry(t, kind)
				as := to.Host + "/app:v1"
				if err := pushAs(t, d, name, as); err != nil {
					t.Errorf("push to %s: %v", kind, err)
					continue
				}
				pull(t, other, as)
				if got := tied(ls(t, other, as).Referrers); !slices.Equal(got, want) {
					t.Errorf("from %s a pull ties\n %s\nwant\n %s", kind, strings.Join(got, "\n "), strings.Join(want, "\n "))
				}
				if lost := damaged(t, other, content); len(lost) > 0 {
					t.Errorf("not pulled from %s: %v", kind, lost)
				}
				removed(t, other)
			}
			removed(t, d)
		})
	}
}
