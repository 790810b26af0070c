package integration

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// layout is an OCI layout that is built by hand, for what no exporter writes.
type layout struct {
	t     *testing.T
	blobs map[string][]byte
	index ocispec.Index
}

func newLayout(t *testing.T) *layout {
	return &layout{t, map[string][]byte{}, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}}
}

func (l *layout) put(mediaType string, data []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	l.blobs["blobs/sha256/"+desc.Digest.Encoded()] = data
	return desc
}

func (l *layout) putJSON(mediaType string, v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.put(mediaType, data)
}

// manifest is one whose config is an image's.
func (l *layout) manifest(platform, layerType, layer string, subject *ocispec.Descriptor) ocispec.Descriptor {
	return l.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Subject: subject,
		Config: l.put(ocispec.MediaTypeImageConfig, []byte(platform)),
		Layers: []ocispec.Descriptor{l.put(layerType, []byte(layer))},
	})
}

func (l *layout) sbom(subject ocispec.Descriptor, text string) ocispec.Descriptor {
	return l.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/spdx+json",
		Config:  l.put(ocispec.MediaTypeEmptyJSON, []byte("{}")),
		Layers:  []ocispec.Descriptor{l.put("application/spdx+json", []byte(text))},
		Subject: &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
	})
}

// image adds an index with a manifest for linux/amd64 and whatever else it names.
func (l *layout) image(name string, more ...ocispec.Descriptor) (index, manifest ocispec.Descriptor) {
	manifest = l.manifest(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, "application/vnd.example.data", name, nil)
	manifest.Platform = &amd64
	index = l.putJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: append([]ocispec.Descriptor{manifest}, more...),
	})
	named := index
	named.Annotations = map[string]string{images.AnnotationImageName: name}
	l.index.Manifests = append(l.index.Manifests, named)
	return index, manifest
}

func (l *layout) carry(desc, subject ocispec.Descriptor) {
	desc.Annotations = map[string]string{images.AnnotationManifestSubject: subject.Digest.String()}
	l.index.Manifests = append(l.index.Manifests, desc)
}

func (l *layout) write() string {
	l.t.Helper()
	index, err := json.Marshal(l.index)
	if err != nil {
		l.t.Fatal(err)
	}
	l.blobs[ocispec.ImageIndexFile] = index
	l.blobs[ocispec.ImageLayoutFile] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, data := range l.blobs {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			l.t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			l.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		l.t.Fatal(err)
	}
	path := filepath.Join(l.t.TempDir(), "layout.tar")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

func digests(tree []digest.Digest) []digest.Digest {
	slices.Sort(tree)
	return tree
}

// An archive of several images gives each its own referrers. What an index within it
// says of subjects is not the archive's word: those are the image's own manifests.
func TestImportOfSeveralImages(t *testing.T) {
	l := newLayout(t)
	first, manifest := l.image("example.com/first:v1")
	own := l.manifest(`{"architecture":"arm64","os":"linux"}`, "application/vnd.example.data", "arm64", nil)
	own.Annotations = map[string]string{images.AnnotationManifestSubject: manifest.Digest.String()}
	own.Platform = &amd64
	second, _ := l.image("example.com/second:v1", own)
	a, b := l.sbom(first, "a"), l.sbom(second, "b")
	l.carry(a, first)
	l.carry(b, second)
	d := startDaemon(t, active(everything))
	ctr(t, d, "images", "import", "--no-unpack", "--platform", "linux/amd64", l.write())
	collect(t, d)
	for image, want := range map[string]digest.Digest{"example.com/first:v1": a.Digest, "example.com/second:v1": b.Digest} {
		read := ls(t, d, image)
		var tied []digest.Digest
		for _, r := range read.Referrers {
			if r.Digest != own.Digest { // which containerd's own label of the index calls one
				tied = append(tied, r.Digest)
			}
		}
		if !slices.Equal(tied, []digest.Digest{want}) {
			t.Errorf("%s has %v, want %s", image, tied, want)
		}
	}
	if !slices.Contains(contents(t, d), own.Digest) {
		t.Error("a manifest of an image was taken for a referrer, and collected")
	}
}

// BuildKit's attestations come in with the index that names them.
func TestImportOfAttestations(t *testing.T) {
	l := newLayout(t)
	attestation := l.manifest(`{"architecture":"unknown","os":"unknown"}`, "application/vnd.in-toto+json", `{"_type":"https://in-toto.io/Statement/v0.1"}`, nil)
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	manifest := l.manifest(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, "application/vnd.example.data", "example.com/app:v1", nil)
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": manifest.Digest.String()}
	l.image("example.com/app:v1", attestation)
	for _, platform := range [][]string{{"--platform", "linux/amd64"}, {"--all-platforms"}} {
		d := startDaemon(t, active(everything))
		ctr(t, d, slices.Concat([]string{"images", "import", "--no-unpack"}, platform, []string{l.write()})...)
		collect(t, d)
		read := ls(t, d, "example.com/app:v1")
		if len(read.Referrers) != 1 || read.Referrers[0].Digest != attestation.Digest || read.Referrers[0].ArtifactType != artifact.TypeBuildKitAttestation {
			t.Errorf("%s: %+v", platform, read.Referrers)
		}
	}
}

// An archive whose own index becomes an image stays whole, with what it lists of
// referrers whose subject is not in it.
func TestImportUnderTheNameOfTheIndex(t *testing.T) {
	l := newLayout(t)
	index, _ := l.image("example.com/app:v1")
	tied, orphan := l.sbom(index, "tied"), l.sbom(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("elsewhere"), Size: 9}, "orphan")
	l.carry(tied, index)
	l.carry(orphan, ocispec.Descriptor{Digest: digest.FromString("elsewhere")})
	d := startDaemon(t, active(everything))
	ctr(t, d, "images", "import", "--no-unpack", "--platform", "linux/amd64", "--index-name", "example.com/whole:v1", l.write())
	collect(t, d)
	archive := filepath.Join(t.TempDir(), "again.tar")
	export(t, d, archive, "--platform", "linux/amd64", "--skip-manifest-json", archive, "example.com/whole:v1")
	for name := range l.blobs {
		if dgst, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && !slices.Contains(contents(t, d), digest.NewDigestFromEncoded(digest.SHA256, dgst)) {
			t.Errorf("%s is gone", dgst)
		}
	}
	ctr(t, d, "images", "rm", "--sync", "example.com/whole:v1", "example.com/app:v1")
	wantNothing(t, d)
}

// What was signed after its image had crossed an air gap can follow it.
func TestImportOfReferrersAlone(t *testing.T) {
	f := loadFixture(t)
	from, image, path := exported(t, f)
	late := newLayout(t)
	sbom := late.sbom(f.Get(fixture.Image), "late")
	late.carry(sbom, f.Get(fixture.Image))
	archive := late.write()

	d := startDaemon(t, active(everything))
	_, err := d.Ctr(testContext(t), "images", "import", archive)
	wantError(t, err, "holds only referrers, and none of an image that is here")
	ctr(t, d, "images", "import", "--platform", "linux/amd64", path)
	ctr(t, d, "images", "import", archive)
	collect(t, d)
	want := append(digests(nil), sbom.Digest)
	for _, r := range ls(t, from, image).Referrers {
		want = append(want, r.Digest)
	}
	var got []digest.Digest
	for _, r := range ls(t, d, image).Referrers {
		got = append(got, r.Digest)
	}
	if !slices.Equal(digests(got), digests(want)) {
		t.Errorf("stored are\n %v, want\n %v", got, want)
	}
	if names := imageNames(t, d); !slices.Equal(names, []string{image}) {
		t.Errorf("image records: %q", names)
	}
}
