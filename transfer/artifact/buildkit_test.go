package artifact

import (
	"fmt"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An entry that a platform matches, or that names none, can be run: it is no attestation,
// whatever its annotations say.
func TestBuildKitEntries(t *testing.T) {
	t.Parallel()
	subject := digest.FromString("subject")
	unknown := &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	annotations := func(kind, of string) map[string]string {
		return map[string]string{"vnd.docker.reference.type": kind, "vnd.docker.reference.digest": of}
	}
	whole := annotations("attestation-manifest", subject.String())
	for _, tc := range []struct {
		name        string
		platform    *ocispec.Platform
		annotations map[string]string
		entry       bool
		subject     digest.Digest
	}{
		{"as BuildKit writes it", unknown, whole, true, subject},
		{"with a variant", &ocispec.Platform{OS: "unknown", Architecture: "unknown", Variant: "v8"}, whole, true, subject},
		{"that names no subject", unknown, map[string]string{"vnd.docker.reference.type": "attestation-manifest"}, true, ""},
		{"without a platform", nil, whole, false, ""},
		{"of an empty platform", &ocispec.Platform{}, whole, false, ""},
		{"for linux/amd64", &ocispec.Platform{OS: "linux", Architecture: "amd64"}, whole, false, ""},
		{"for linux/unknown", &ocispec.Platform{OS: "linux", Architecture: "unknown"}, whole, false, ""},
		{"for unknown/amd64", &ocispec.Platform{OS: "unknown", Architecture: "amd64"}, whole, false, ""},
		{"for UNKNOWN/UNKNOWN", &ocispec.Platform{OS: "UNKNOWN", Architecture: "UNKNOWN"}, whole, false, ""},
		{"without annotations", unknown, nil, false, ""},
		{"with a digest alone", unknown, map[string]string{"vnd.docker.reference.digest": subject.String()}, false, ""},
		{"of another type", unknown, annotations("image", subject.String()), false, ""},
		{"of a type in another case", unknown, annotations("Attestation-Manifest", subject.String()), false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			entry := ocispec.Descriptor{MediaType: manifestType, Digest: digest.FromString("attestation"), Size: 1, Platform: tc.platform, Annotations: tc.annotations}
			if got := IsBuildKitEntry(entry); got != tc.entry {
				t.Errorf("an attestation: %t, want %t", got, tc.entry)
			}
			if got := BuildKitSubject(entry); got != tc.subject {
				t.Errorf("it attests %q, want %q", got, tc.subject)
			}
		})
	}
}

func TestBuildKitAttestation(t *testing.T) {
	t.Parallel()
	const (
		statement = "application/vnd.in-toto+json"
		image     = ocispec.MediaTypeImageConfig
		empty     = ocispec.MediaTypeEmptyJSON
	)
	subject := fmt.Sprintf(`"subject":{"mediaType":%q,"digest":%q,"size":1},`, manifestType, digest.FromString("subject"))
	layers := func(types ...string) string {
		out := ""
		for _, mediaType := range types {
			out += fmt.Sprintf(`,{"mediaType":%q}`, mediaType)
		}
		return `"layers":[` + out[min(1, len(out)):] + `]`
	}
	config := func(mediaType string) string { return fmt.Sprintf(`"config":{"mediaType":%q},`, mediaType) }
	artifactType := func(mediaType string) string { return fmt.Sprintf(`"artifactType":%q,`, mediaType) }
	for _, tc := range []struct {
		name, data string
		mediaType  string // "" for a manifest
		want       bool
	}{
		{"as BuildKit writes it", config(image) + layers(statement, statement), "", true},
		{"with a Docker config", config(images.MediaTypeDockerSchema2Config) + layers(statement), "", true},
		{"as BuildKit writes it as an artifact: its own type, an empty config, a subject", artifactType(TypeBuildKitAttestation) + config(empty) + subject + layers(statement), "", true},
		{"of its own type, with an image's config", artifactType(TypeBuildKitAttestation) + config(image) + layers(statement), "", true},
		{"of its own type by its config", config(TypeBuildKitAttestation) + layers(statement), "", true},
		{"of its own type, without a config", artifactType(TypeBuildKitAttestation) + layers(statement), "", true},
		{"without type and config", layers(statement), "", true},
		{"with a subject", config(image) + subject + layers(statement), "", true},
		{"of other in-toto types", config(image) + layers("application/vnd.in-toto.provenance+dsse", statement), "", true},

		{"a layer that can be unpacked beside the statements", config(image) + layers(statement, ocispec.MediaTypeImageLayerGzip), "", false},
		{"before them", config(image) + layers(ocispec.MediaTypeImageLayer, statement), "", false},
		{"an untyped layer", config(image) + layers(statement, ""), "", false},
		{"another image", config(image) + layers(ocispec.MediaTypeImageLayerGzip), "", false},
		{"no layers", config(image) + layers(), "", false},
		{"a config alone", config(image)[:len(config(image))-1], "", false},
		{"its own type and nothing else", artifactType(TypeBuildKitAttestation) + config(empty) + layers(), "", false},
		{"its own type with layers of an image", artifactType(TypeBuildKitAttestation) + config(empty) + layers(ocispec.MediaTypeImageLayerGzip), "", false},
		{"a config of statements, layers of an image", config(statement) + layers(ocispec.MediaTypeImageLayerGzip), "", false},
		{"another artifact type", artifactType("application/vnd.cncf.notary.signature") + config(image) + layers(statement), "", false},
		{"another artifact type, by its config", config(empty) + layers(statement), "", false},
		{"its own type with parameters", artifactType(TypeBuildKitAttestation+";v=1") + config(empty) + layers(statement), "", false},
		{"an index", artifactType(TypeBuildKitAttestation) + `"manifests":[{"mediaType":"` + statement + `"}]`, indexType, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			mediaType := manifestType
			if tc.mediaType != "" {
				mediaType = tc.mediaType
			}
			m, err := Parse([]byte(`{`+tc.data+`}`), mediaType)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.IsBuildKitAttestation(); got != tc.want {
				t.Errorf("an attestation: %t, want %t", got, tc.want)
			}
		})
	}
}
