package archive

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// export returns the index.json of an archive of the images, and its files.
func (s *shelf) export(roots ...ocispec.Descriptor) (ocispec.Index, map[string][]byte) {
	s.t.Helper()
	var imgs []images.Image
	opts := []archive.ExportOpt{archive.WithSkipDockerManifest()}
	for i, root := range roots {
		img := images.Image{Name: fmt.Sprintf("registry.example.com/app:v%d", i+1), Target: root}
		imgs = append(imgs, img)
		opts = append(opts, archive.WithManifest(root, img.Name))
	}
	var out bytes.Buffer
	if err := exportWithReferrers(s.ctx, s.store, imgs, &out, opts); err != nil {
		s.t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if files[h.Name] != nil {
			s.t.Errorf("%s is in the archive twice", h.Name)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			s.t.Fatal(err)
		}
	}
	var index ocispec.Index
	if err := json.Unmarshal(files[ocispec.ImageIndexFile], &index); err != nil {
		s.t.Fatal(err)
	}
	return index, files
}

// What refers to an index within the image's, and to its manifests, is carried too.
func TestExportOfNestedIndexes(t *testing.T) {
	s := newShelf(t)
	manifest := s.artifact("image", nil)
	nested := s.index(nil, manifest)
	root := s.index(nil, nested)
	want := map[digest.Digest]digest.Digest{} // subject by referrer
	for _, subject := range []ocispec.Descriptor{root, nested, manifest} {
		r := s.artifact("signature", &subject)
		want[r.Digest] = subject.Digest
		if err := stored.NewLabeler(s.store).Tie(s.ctx, subject.Digest, r.Digest); err != nil {
			t.Fatal(err)
		}
	}
	index, files := s.export(root)
	got := map[digest.Digest]digest.Digest{}
	for _, d := range index.Manifests {
		if subject := d.Annotations[images.AnnotationManifestSubject]; subject != "" {
			got[d.Digest] = digest.Digest(subject)
		}
	}
	for referrer, subject := range want {
		if got[referrer] != subject {
			t.Errorf("%s refers to %q in the archive, want %s", referrer, got[referrer], subject)
		}
		if name := path.Join(ocispec.ImageBlobsDir, "sha256", referrer.Encoded()); files[name] == nil {
			t.Errorf("%s is not in the archive", name)
		}
	}
}

// What lies under cosign's tags of two images, being the same, is carried for both.
func TestExportOfAReferrerOfTwoImages(t *testing.T) {
	s := newShelf(t)
	first, second := s.artifact("first", nil), s.artifact("second", nil)
	sbom := s.artifact("sbom", nil)
	signature := s.artifact("signature", &sbom)
	for subject, referrer := range map[digest.Digest]digest.Digest{first.Digest: sbom.Digest, second.Digest: sbom.Digest, sbom.Digest: signature.Digest} {
		if err := stored.NewLabeler(s.store).Tie(s.ctx, subject, referrer); err != nil {
			t.Fatal(err)
		}
	}
	index, _ := s.export(first, second, first)
	var got []string
	for _, entry := range index.Manifests {
		if subject := Subject(entry); subject != "" {
			got = append(got, refers(entry, ocispec.Descriptor{Digest: subject}))
		}
	}
	slices.Sort(got)
	want := []string{refers(sbom, first), refers(sbom, second), refers(signature, sbom)}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("index.json has\n %q, want\n %q", got, want)
	}
}

// Nothing that a referrer's manifest says of itself is said by index.json of the archive.
func TestExportStripsAnnotations(t *testing.T) {
	s := newShelf(t)
	image := s.artifact("image", nil)
	evil := s.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "text/evil", Config: ocispec.DescriptorEmptyJSON, Subject: &image,
		Annotations: map[string]string{
			images.AnnotationImageName: "registry.example.com/app:v1", ocispec.AnnotationRefName: "v1", "containerd.io/gc.root": "1",
			"containerd.io/distribution.source.example.com": "app", images.AnnotationManifestSubject: digest.FromString("other").String(),
			artifact.AnnotationPredicate: "https://sigstore.dev/cosign/sign/v1",
		},
	})
	if err := stored.NewLabeler(s.store).Tie(s.ctx, image.Digest, evil.Digest); err != nil {
		t.Fatal(err)
	}
	index, _ := s.export(image)
	want := evil
	want.ArtifactType = "text/evil"
	want.Annotations = map[string]string{images.AnnotationManifestSubject: image.Digest.String()}
	if len(index.Manifests) != 2 || !reflect.DeepEqual(index.Manifests[1], want) {
		t.Errorf("index.json has %+v, want %+v", index.Manifests, want)
	}
}

// A referrer that lists its own subject, or what its subject is a referrer of, ends: what
// it names is written once.
func TestExportOfLoops(t *testing.T) {
	s := newShelf(t)
	manifest := s.artifact("image", nil)
	image := s.index(nil, manifest)
	lister := s.index(&manifest, manifest)
	longer := s.index(&manifest, image)
	back := s.index(&lister, lister, manifest)
	for subject, referrers := range map[digest.Digest][]digest.Digest{
		manifest.Digest: {lister.Digest, longer.Digest}, lister.Digest: {back.Digest}, back.Digest: {lister.Digest, back.Digest},
	} {
		if err := stored.NewLabeler(s.store).Tie(s.ctx, subject, referrers...); err != nil {
			t.Fatal(err)
		}
	}
	index, files := s.export(image)
	var got []string
	for _, entry := range index.Manifests[1:] {
		got = append(got, refers(entry, ocispec.Descriptor{Digest: Subject(entry)}))
		if files[blobName(entry.Digest)] == nil {
			t.Errorf("%s is not in the archive", entry.Digest)
		}
	}
	slices.Sort(got)
	want := []string{refers(lister, manifest), refers(longer, manifest), refers(back, lister)}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("index.json has\n %q, want\n %q", got, want)
	}
}
