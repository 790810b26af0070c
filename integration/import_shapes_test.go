package integration

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
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
	return l.writeRaw(index)
}

// writeRaw writes an archive of the layout's content with another index.json.
func (l *layout) writeRaw(index []byte) string {
	l.t.Helper()
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

// Registries and tools say in other annotations than containerd's what an entry refers to.
func TestImportByOtherAnnotations(t *testing.T) {
	const image = "example.com/app:v1"
	d := startDaemon(t, active(everything))
	for _, key := range []string{"org.opencontainers.image.referrer.subject", "org.olareg.referrer.subject"} {
		t.Run(key, func(t *testing.T) {
			l := newLayout(t)
			index, manifest := l.image(image)
			var want []string
			for _, subject := range []ocispec.Descriptor{index, manifest} {
				sbom := l.sbom(subject, "sbom")
				want = append(want, fmt.Sprintf("%s of %s: application/spdx+json", sbom.Digest, subject.Digest))
				sbom.Annotations = map[string]string{key: subject.Digest.String(), ocispec.AnnotationRefName: "v1"}
				l.index.Manifests = append(l.index.Manifests, sbom)
			}
			// One that lies is left out, though its subject is in the archive.
			liar := l.sbom(index, "liar")
			liar.Annotations = map[string]string{key: manifest.Digest.String()}
			l.index.Manifests = append(l.index.Manifests, liar)
			slices.Sort(want)
			printed := ctr(t, d, "images", "import", "--no-unpack", "--platform", "linux/amd64", "--base-name", "example.com/app", l.write())
			wantSaid(t, d, printed, len(want))
			collect(t, d)
			wantRecord(t, d, image, index.Digest)
			if got := tied(ls(t, d, image).Referrers); !slices.Equal(got, want) {
				t.Errorf("tied are %q, want %q", got, want)
			}
			removed(t, d)
		})
	}
}

// A name that only looks like a tag of referrers is an image's.
func TestImportOfImagesWithDigestsInTheirTags(t *testing.T) {
	d := startDaemon(t, active(everything))
	for name, tag := range map[string]func(index, manifest ocispec.Descriptor) string{
		"its own digest, as tools that mirror by digest have it": func(index, _ ocispec.Descriptor) string { return "sha256-" + index.Digest.Encoded() },
		"what it was built from": func(ocispec.Descriptor, ocispec.Descriptor) string {
			return "build-" + digest.FromString("sources").Encoded()
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t)
			index, manifest := l.image("example.com/app:v1")
			l.index.Manifests[0].Annotations[images.AnnotationImageName] = "example.com/app:" + tag(index, manifest)
			imported(t, d, l.write(), "example.com/app:"+tag(index, manifest), index.Digest, "--no-unpack")
			removed(t, d)
		})
	}
}

// What lies under cosign's tag of an image that is elsewhere can be imported as it can be
// pulled.
func TestImportOfASignatureAsAnImage(t *testing.T) {
	l := newLayout(t)
	signature := l.manifest(`{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}`, simpleSigning, "payload", nil)
	name := "example.com/app:sha256-" + digest.FromString("elsewhere").Encoded() + ".sig"
	named := signature
	named.Annotations = map[string]string{images.AnnotationImageName: name}
	l.index.Manifests = append(l.index.Manifests, named)
	d := startDaemon(t, active(everything))
	ctr(t, d, "images", "import", "--all-platforms", "--no-unpack", l.write())
	wantRecord(t, d, name, signature.Digest)
	removed(t, d)
}

// A referrer that looks like an image is not unpacked where it comes alone either, and an
// archive of referrers can be kept under a name of its own.
func TestImportOfReferrersAloneUnpacksNothing(t *testing.T) {
	const image = "example.com/app:v1"
	l := newLayout(t)
	index, manifest := l.image(image)
	d := startDaemon(t, active(everything))
	imported(t, d, l.write(), image, index.Digest)

	late := newLayout(t)
	looks := late.manifest(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["`+digest.FromString("no tar").String()+`"]}}`, ocispec.MediaTypeImageLayer, "no tar",
		&ocispec.Descriptor{MediaType: manifest.MediaType, Digest: manifest.Digest, Size: manifest.Size})
	late.carry(looks, manifest)
	sbom := late.sbom(index, "late")
	late.index.Manifests = append(late.index.Manifests, sbom)
	path := late.write()
	imported(t, d, path, image, index.Digest)
	var got []digest.Digest
	for _, r := range ls(t, d, image).Referrers {
		got = append(got, r.Digest)
	}
	if want := digests([]digest.Digest{looks.Digest, sbom.Digest}); !slices.Equal(digests(got), want) {
		t.Errorf("tied are %v, want %v", got, want)
	}
	removed(t, d)

	// Without the image they can only be kept as what they are.
	_, err := d.Ctr(testContext(t), "images", "import", path)
	wantError(t, err, "holds only referrers, and none of an image that is here")
	collect(t, d)
	wantNothing(t, d)
	ctr(t, d, "images", "import", "--index-name", "example.com/referrers:v1", path)
	collect(t, d)
	for name := range late.blobs {
		if dgst, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && !slices.Contains(contents(t, d), digest.NewDigestFromEncoded(digest.SHA256, dgst)) {
			t.Errorf("%s is gone", dgst)
		}
	}
	removed(t, d)
}
