package archive

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

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
		if err := stored.NewLabeler(s.store).Tie(s.ctx, subject.Digest, []digest.Digest{r.Digest}, nil); err != nil {
			t.Fatal(err)
		}
	}
	img := images.Image{Name: "registry.example.com/app:v1", Target: root}
	var out bytes.Buffer
	err := exportWithReferrers(s.ctx, s.store, []images.Image{img}, &out, []archive.ExportOpt{archive.WithManifest(root, img.Name), archive.WithSkipDockerManifest()})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	var index ocispec.Index
	if err := json.Unmarshal(files[ocispec.ImageIndexFile], &index); err != nil {
		t.Fatal(err)
	}
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
