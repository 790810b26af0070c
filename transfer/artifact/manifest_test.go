package artifact

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

func TestParse(t *testing.T) {
	t.Parallel()
	subject := &ocispec.Descriptor{MediaType: manifestType, Digest: digest.FromString("subject"), Size: 9}
	subjectJSON := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":9}`, manifestType, subject.Digest)
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: ocispec.DescriptorEmptyJSON.Digest, Size: 2}
	configJSON := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":2}`, config.MediaType, config.Digest)
	layer := ocispec.Descriptor{MediaType: "text/spdx", Digest: digest.FromString("layer"), Size: 5}
	layerJSON := fmt.Sprintf(`{"mediaType":"text/spdx","digest":%q,"size":5}`, layer.Digest)
	child := ocispec.Descriptor{MediaType: manifestType, Digest: digest.FromString("child"), Size: 3}
	childJSON := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":3}`, manifestType, child.Digest)

	for _, tc := range []struct {
		name, mediaType, data string
		want                  Manifest
	}{
		{
			"manifest", manifestType,
			`{"schemaVersion":2,"mediaType":"` + manifestType + `","artifactType":"sbom/x","config":` + configJSON + `,"layers":[` + layerJSON + `],"subject":` + subjectJSON + `,"annotations":{"a":"b"}}`,
			Manifest{ArtifactType: "sbom/x", Subject: subject, Blobs: []ocispec.Descriptor{config, layer}, Annotations: map[string]string{"a": "b"}},
		}, {
			"index", indexType,
			`{"schemaVersion":2,"mediaType":"` + indexType + `","artifactType":"sbom/x","manifests":[` + childJSON + `],"subject":` + subjectJSON + `}`,
			Manifest{ArtifactType: "sbom/x", Subject: subject, Manifests: []ocispec.Descriptor{child}},
		}, {
			"manifest that does not name its type", manifestType,
			`{"schemaVersion":2,"artifactType":"sbom/x","config":` + configJSON + `,"layers":[]}`,
			Manifest{ArtifactType: "sbom/x", Blobs: []ocispec.Descriptor{config}, Hollow: true},
		}, {
			"no artifactType, then the config's", manifestType,
			`{"config":{"mediaType":"application/vnd.cncf.notary.signature"},"layers":[]}`,
			Manifest{ArtifactType: "application/vnd.cncf.notary.signature", Blobs: []ocispec.Descriptor{{MediaType: "application/vnd.cncf.notary.signature"}}},
		}, {
			"no subject", manifestType, `{"artifactType":"sbom/x"}`, Manifest{ArtifactType: "sbom/x", Hollow: true},
		}, {
			"subject null", manifestType, `{"artifactType":"sbom/x","subject":null}`, Manifest{ArtifactType: "sbom/x", Hollow: true},
		}, {
			"Docker manifest", images.MediaTypeDockerSchema2Manifest, `{"artifactType":"sbom/x","layers":[` + layerJSON + `]}`,
			Manifest{ArtifactType: "sbom/x", Blobs: []ocispec.Descriptor{layer}},
		}, {
			"Docker manifest list", images.MediaTypeDockerSchema2ManifestList, `{"artifactType":"sbom/x","manifests":[` + childJSON + `]}`,
			Manifest{ArtifactType: "sbom/x", Manifests: []ocispec.Descriptor{child}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse([]byte(tc.data), tc.mediaType, 1)
			if err != nil {
				t.Fatal(err)
			}
			tc.want.MediaType = tc.mediaType
			if !reflect.DeepEqual(*got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", *got, tc.want)
			}
		})
	}
}

func TestParseRejects(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, mediaType, data, what string }{
		{"blob", "text/spdx", `{}`, `"text/spdx" is neither a manifest nor an index`},
		{"no type", "", `{}`, "neither a manifest nor an index"},
		{"another type", manifestType, `{"mediaType":"` + indexType + `"}`, fmt.Sprintf("calls itself %q, its descriptor %q", indexType, manifestType)},
		{"the other's type", indexType, `{"mediaType":"` + manifestType + `"}`, "calls itself"},
		{"Docker's type for OCI's", manifestType, `{"mediaType":"` + images.MediaTypeDockerSchema2Manifest + `"}`, "calls itself"},
		{"trailing data", manifestType, `{} {}`, "data after the end"},
		{"cut off", manifestType, `{"layers":[`, "decode JSON"},
		{"layers of another kind", manifestType, `{"layers":{}}`, "not an array"},
		{"size of another kind", manifestType, `{"layers":[{"size":"1"}]}`, "decode JSON"},
		{"size beyond 64 bits", manifestType, `{"layers":[{"size":9223372036854775808}]}`, "decode JSON"},
		{"subject of another kind", manifestType, `{"subject":"sha256:x"}`, "decode JSON"},
		{"an index with layers (CVE-2021-41190)", indexType, `{"manifests":[],"layers":[]}`, "fields of another kind"},
		{"an index with a config", indexType, `{"manifests":[],"config":{}}`, "fields of another kind"},
		{"a manifest with manifests", manifestType, `{"layers":[],"manifests":[]}`, "fields of another kind"},
		{"an index without manifests", indexType, `{"schemaVersion":2}`, "fields of another kind"},
		{"null", manifestType, `null`, "null is no object"},
		{"schema 1", manifestType, `{"schemaVersion":1}`, "schemaVersion 1"},
		{"annotation of another kind", manifestType, `{"annotations":{"a":1}}`, "decode JSON"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(tc.data), tc.mediaType, 32)
			wantInvalid(t, err, tc.what)
		})
	}
}

func TestParseCountsChildren(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, mediaType, key string
		n, most              int
		ok                   bool
	}{
		{"layers at the limit", manifestType, "layers", 32, 32, true},
		{"layers over it", manifestType, "layers", 33, 32, false},
		{"manifests at the limit", indexType, "manifests", 32, 32, true},
		{"manifests over it", indexType, "manifests", 33, 32, false},
		{"as many as are read", manifestType, "layers", MaxDescriptors, MaxDescriptors, true},
		{"more than are read", manifestType, "layers", MaxDescriptors + 1, MaxDescriptors, false},
		{"the limit above what is read", indexType, "manifests", MaxDescriptors + 1, 2 * MaxDescriptors, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m, err := Parse([]byte(`{"`+tc.key+`":`+array(tc.n)+`}`), tc.mediaType, tc.most)
			switch {
			case tc.ok && err != nil:
				t.Error(err)
			case tc.ok && len(m.Blobs)+len(m.Manifests) != tc.n:
				t.Errorf("%d blobs and %d manifests of %d", len(m.Blobs), len(m.Manifests), tc.n)
			case !tc.ok && !errdefs.IsResourceExhausted(err):
				t.Errorf("%v is no errdefs.ErrResourceExhausted", err)
			}
		})
	}
}

// cosign v1 and v2 stored what looks like images; only the layers tell.
func TestCosignLegacyTypes(t *testing.T) {
	t.Parallel()
	const (
		signature = "application/vnd.dev.cosign.simplesigning.v1+json"
		envelope  = "application/vnd.dsse.envelope.v1+json"
		image     = ocispec.MediaTypeImageConfig
		docker    = images.MediaTypeDockerSchema2Config
	)
	for _, tc := range []struct{ name, artifactType, config, layer, want string }{
		{".sig", "", image, signature, policy.TypeCosignSignature},
		{".sig, Docker", "", docker, signature, policy.TypeCosignSignature},
		{".att", "", image, envelope, policy.TypeCosignAttestation},
		{".sbom, CycloneDX", "", image, "application/vnd.cyclonedx+json", policy.TypeCosignSBOM},
		{".sbom, CycloneDX XML", "", image, "application/vnd.cyclonedx+xml", policy.TypeCosignSBOM},
		{".sbom, SPDX", "", image, "text/spdx", policy.TypeCosignSBOM},
		{".sbom, SPDX JSON", "", image, "text/spdx+json", policy.TypeCosignSBOM},
		{".sbom, SPDX JSON before cosign v2", "", image, "spdx+json", policy.TypeCosignSBOM},
		{".sbom, syft", "", image, "application/vnd.syft+json", policy.TypeCosignSBOM},
		{"an image", "", image, ocispec.MediaTypeImageLayerGzip, image},
		{"an image without layers", "", image, "", image},
		{"a manifest that says its type", "sbom/x", image, signature, "sbom/x"},
		{"a manifest that says it is an image", image, image, signature, image},
		{"another config", "", "application/vnd.cncf.notary.signature", signature, "application/vnd.cncf.notary.signature"},
		{"no config", "", "", signature, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			layers := "[]"
			if tc.layer != "" {
				layers = fmt.Sprintf(`[{"mediaType":%q},{"mediaType":"text/x"}]`, tc.layer)
			}
			config := "null"
			if tc.config != "" {
				config = fmt.Sprintf(`{"mediaType":%q}`, tc.config)
			}
			m, err := Parse(fmt.Appendf(nil, `{"artifactType":%q,"config":%s,"layers":%s}`, tc.artifactType, config, layers), manifestType, 2)
			if err != nil {
				t.Fatal(err)
			}
			if m.ArtifactType != tc.want {
				t.Errorf("type %q, want %q", m.ArtifactType, tc.want)
			}
		})
	}
}
