package artifact

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
			Manifest{ArtifactType: "sbom/x", Subject: subject, Blobs: []ocispec.Descriptor{config, layer}, HasConfig: true, Annotations: map[string]string{"a": "b"}},
		}, {
			"index", indexType,
			`{"schemaVersion":2,"mediaType":"` + indexType + `","artifactType":"sbom/x","manifests":[` + childJSON + `],"subject":` + subjectJSON + `}`,
			Manifest{ArtifactType: "sbom/x", Subject: subject, Manifests: []ocispec.Descriptor{child}},
		}, {
			"manifest that does not name its type", manifestType,
			`{"schemaVersion":2,"artifactType":"sbom/x","config":` + configJSON + `,"layers":[]}`,
			Manifest{ArtifactType: "sbom/x", Blobs: []ocispec.Descriptor{config}, HasConfig: true, Hollow: true},
		}, {
			"no artifactType, then the config's", manifestType,
			`{"config":{"mediaType":"application/vnd.cncf.notary.signature"},"layers":[]}`,
			Manifest{ArtifactType: "application/vnd.cncf.notary.signature", Blobs: []ocispec.Descriptor{{MediaType: "application/vnd.cncf.notary.signature"}}, HasConfig: true},
		}, {
			"no subject", manifestType, `{"artifactType":"sbom/x"}`, Manifest{ArtifactType: "sbom/x", Hollow: true},
		}, {
			"subject null", manifestType, `{"artifactType":"sbom/x","subject":null}`, Manifest{ArtifactType: "sbom/x", Hollow: true},
		}, {
			"Docker manifest", images.MediaTypeDockerSchema2Manifest, `{"artifactType":"sbom/x","layers":[` + layerJSON + `]}`,
			Manifest{ArtifactType: "sbom/x", Blobs: []ocispec.Descriptor{layer}},
		}, {
			"artifact manifest of a release candidate", MediaTypeArtifactManifest,
			`{"mediaType":"` + MediaTypeArtifactManifest + `","artifactType":"sbom/x","blobs":[` + layerJSON + `],"subject":` + subjectJSON + `}`,
			Manifest{ArtifactType: "sbom/x", Subject: subject, Blobs: []ocispec.Descriptor{layer}},
		}, {
			"Docker manifest list", images.MediaTypeDockerSchema2ManifestList, `{"artifactType":"sbom/x","manifests":[` + childJSON + `]}`,
			Manifest{ArtifactType: "sbom/x", Manifests: []ocispec.Descriptor{child}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse([]byte(tc.data), tc.mediaType)
			if err != nil {
				t.Fatal(err)
			}
			tc.want.MediaType = tc.mediaType
			if strings.Contains(tc.data, `"artifactType"`) {
				tc.want.OwnType = tc.want.ArtifactType
			}
			if !reflect.DeepEqual(*got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", *got, tc.want)
			}
		})
	}
}

// fields are n members of an object.
func fields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"%d":0,`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

// A manifest that is stored tells its own type, or none.
func TestParseByItsOwnType(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ data, want string }{
		{`{"mediaType":"` + manifestType + `"}`, manifestType},
		{`{"mediaType":"` + indexType + `","manifests":[]}`, indexType},
		{`{"mediaType":"` + MediaTypeArtifactManifest + `"}`, MediaTypeArtifactManifest},
		{`{"layers":[]}`, manifestType},
		{`{"manifests":[]}`, indexType},
	} {
		if m, err := Parse([]byte(tc.data), ""); err != nil || m.MediaType != tc.want {
			t.Errorf("%s: %+v, %v, want %s", tc.data, m, err, tc.want)
		}
	}
}

func TestParseRejects(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, mediaType, data, what string }{
		{"blob", "text/spdx", `{}`, `"text/spdx" is neither a manifest nor an index`},
		{"its own type, which is a blob's", "", `{"mediaType":"text/spdx"}`, `"text/spdx" is neither a manifest nor an index`},
		{"layers twice", manifestType, `{"layers":[],"layers":[{}]}`, `"layers" stands there twice`},
		{"layers in capitals", manifestType, `{"layers":[],"Layers":[{}]}`, `"Layers" is not spelt "layers"`},
		{"the long s, which folds to s", manifestType, `{"layer\u017f":[{}]}`, "is not spelt"},
		{"subject in capitals alone", manifestType, `{"SUBJECT":{}}`, `is not spelt "subject"`},
		{"a layer's digest twice", manifestType, `{"layers":[{"digest":"a","digest":"b"}]}`, "stands there twice"},
		{"an annotation twice", manifestType, `{"annotations":{"a":"b","a":"c"}}`, "duplicate"},
		{"the subject's annotation twice", manifestType, `{"subject":{"annotations":{"a":"b","a":"c"}}}`, "duplicate"},
		{"invalid UTF-8 in a type", manifestType, "{\"artifactType\":\"\xff\"}", "UTF-8"},
		{"invalid UTF-8 in a field that is not read", manifestType, "{\"x\":\"\xff\"}", "UTF-8"},
		{"a field that is not read, with one twice within", manifestType, `{"x":{"a":1,"a":2}}`, "twice"},
		{"a name twice in a descriptor that is not read", manifestType, `{"config":{"platform":{"os":"a","os":"b"}}}`, "twice"},
		{"more fields than are read", manifestType, `{` + fields(maxMembers+1) + `}`, "more than 1000 fields"},
		{"more fields than are read, in an object that is not read", manifestType, `{"x":[{` + fields(maxMembers+1) + `}]}`, "more than 1000 fields"},
		{"a field that is not read twice", manifestType, `{"b":1,"a":1,"b":2}`, `"b" stands there twice`},
		{"annotations of a layer that are too long to be read, one twice", manifestType, `{"layers":[{"annotations":{"a":"` + strings.Repeat("x", MaxAnnotations) + `","a":""}}]}`, "twice"},
		{"annotations of a layer that are too long to be read, and no object", manifestType, `{"layers":[{"annotations":["` + strings.Repeat("x", MaxAnnotations) + `"]}]}`, "no object"},
		{"an artifact manifest with layers", MediaTypeArtifactManifest, `{"blobs":[],"layers":[]}`, "fields of another kind"},
		{"a manifest with blobs", manifestType, `{"layers":[],"blobs":[]}`, "fields of another kind"},
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
			_, err := Parse([]byte(tc.data), tc.mediaType)
			wantInvalid(t, err, tc.what)
		})
	}
}

func TestParseCountsChildren(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, mediaType, key string
		n                    int
		ok                   bool
	}{
		{"layers at the limit", manifestType, "layers", MaxDescriptors, true},
		{"layers over it", manifestType, "layers", MaxDescriptors + 1, false},
		{"blobs at the limit", MediaTypeArtifactManifest, "blobs", MaxDescriptors, true},
		{"blobs over it", MediaTypeArtifactManifest, "blobs", MaxDescriptors + 1, false},
		{"manifests at the limit", indexType, "manifests", MaxDescriptors, true},
		{"manifests over it", indexType, "manifests", MaxDescriptors + 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m, err := Parse([]byte(`{"`+tc.key+`":`+array(tc.n)+`}`), tc.mediaType)
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

// Each child becomes a label, of which a thousand copies of one layer need no more than one.
func TestChildrenAreNamedOnce(t *testing.T) {
	t.Parallel()
	one, other := digest.FromString("one"), digest.FromString("other")
	m := &Manifest{Blobs: []ocispec.Descriptor{{Digest: one}, {Digest: other}, {Digest: one}, {Digest: "none"}}, Manifests: []ocispec.Descriptor{{Digest: other}}}
	if got := m.Children(); !slices.Equal(got, []digest.Digest{one, other}) {
		t.Errorf("children %v", got)
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
		{".sig", "", image, signature, TypeCosignSignature},
		{".sig, Docker", "", docker, signature, TypeCosignSignature},
		{".att", "", image, envelope, TypeCosignAttestation},
		{".sbom, CycloneDX", "", image, "application/vnd.cyclonedx+json", TypeCosignSBOM},
		{".sbom, CycloneDX XML", "", image, "application/vnd.cyclonedx+xml", TypeCosignSBOM},
		{".sbom, SPDX", "", image, "text/spdx", TypeCosignSBOM},
		{".sbom, SPDX JSON", "", image, "text/spdx+json", TypeCosignSBOM},
		{".sbom, SPDX JSON before cosign v2", "", image, "spdx+json", TypeCosignSBOM},
		{".sbom, syft", "", image, "application/vnd.syft+json", TypeCosignSBOM},
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
			m, err := Parse(fmt.Appendf(nil, `{"artifactType":%q,"config":%s,"layers":%s}`, tc.artifactType, config, layers), manifestType)
			if err != nil {
				t.Fatal(err)
			}
			if m.ArtifactType != tc.want {
				t.Errorf("type %q, want %q", m.ArtifactType, tc.want)
			}
		})
	}
}
