package integration

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// An archive carries what is stored with the image: the referrers of the index
// and of the platform manifest, and theirs, each under its subject and whole.
func TestExport(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	subjects := map[string]string{
		fixture.CosignSignature: fixture.Image, fixture.CosignSBOM: fixture.Image, fixture.Notation: fixture.Image,
		fixture.SBOM: fixture.AMD64, fixture.VEX: fixture.AMD64, fixture.SBOMSignature: fixture.SBOM,
	}
	for _, tc := range []struct {
		name, plugin string
		carried      bool
	}{
		{"by default", everything, true},
		{"export = false", "export = false\n" + everything, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := startDaemon(t, active(tc.plugin))
			image := reg.Host + "/app:v1"
			pull(t, d, image)
			path := filepath.Join(t.TempDir(), "image.tar")
			export(t, d, path, "--platform", "linux/amd64", path, image)
			index, blobs := readArchive(t, path)
			got := map[digest.Digest]string{}
			for _, m := range index.Manifests {
				if s := m.Annotations[images.AnnotationManifestSubject]; s != "" {
					got[m.Digest] = s
				}
			}
			for name, subject := range subjects {
				if s := got[f.Get(name).Digest]; tc.carried && s != f.Get(subject).Digest.String() {
					t.Errorf("%s is carried with subject %q, want %s", name, s, f.Get(subject).Digest)
				}
				for _, dgst := range f.Content(name) {
					if tc.carried && !blobs[dgst] {
						t.Errorf("%s: %s is not in the archive", name, dgst)
					}
				}
			}
			if !tc.carried && len(got) > 0 {
				t.Errorf("referrers are carried: %v", got)
			}
			// The archive is an image's to anyone who knows no referrers.
			for _, args := range [][]string{{"images", "rm", "--sync", image}, {"images", "import", "--platform", "linux/amd64", path}, {"images", "check"}} {
				if _, err := d.Ctr(testContext(t), args...); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := d.Client.ImageService().Get(testContext(t), image); err != nil {
				t.Error(err)
			}
		})
	}
}

func readArchive(t *testing.T, path string) (ocispec.Index, map[digest.Digest]bool) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var index ocispec.Index
	blobs := map[digest.Digest]bool{}
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return index, blobs
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == ocispec.ImageIndexFile {
			if err := json.Unmarshal(data, &index); err != nil {
				t.Fatal(err)
			}
		} else if h.Typeflag == tar.TypeReg {
			blobs[digest.FromBytes(data)] = true
		}
	}
}
