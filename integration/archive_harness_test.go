package integration

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// pushIndexed puts an image of one platform into the repository app, as an index with one
// manifest, and returns both.
func pushIndexed(t *testing.T, reg *registry.Registry, tag, text string) (index, manifest ocispec.Descriptor) {
	t.Helper()
	image := pushSmall(t, reg, "app", "", text)
	return put(t, reg, tag, ocispec.MediaTypeImageIndex, imageIndex(nil, image.Descriptor)), subjectOf(image.Descriptor)
}

// imageIndex is an index of manifests, which refers to the subject.
func imageIndex(subject *ocispec.Descriptor, manifests ...ocispec.Descriptor) ocispec.Index {
	return ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests, Subject: subject}
}

// subjectOf is a descriptor as a subject field has it.
func subjectOf(desc ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
}

// exportedFrom is an archive of the image, written by the daemon.
func exportedFrom(t *testing.T, d *daemon.Daemon, image string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	export(t, d, path, "--platform", "linux/amd64", path, image)
	return path
}

// wantWholeArchive fails unless all that the archive's index.json reaches is in it, to the
// byte. It returns that index.
func wantWholeArchive(t *testing.T, path string) ocispec.Index {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[h.Name]; twice {
			t.Errorf("%s is in the archive twice", h.Name)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	var index ocispec.Index
	if err := json.Unmarshal(files[ocispec.ImageIndexFile], &index); err != nil {
		t.Fatal(err)
	}
	read := func(desc ocispec.Descriptor) []byte {
		data := files["blobs/"+desc.Digest.Algorithm().String()+"/"+desc.Digest.Encoded()]
		if desc.Digest.Algorithm().FromBytes(data) != desc.Digest {
			t.Errorf("%s is not in the archive", desc.Digest)
		}
		return data
	}
	seen := map[digest.Digest]bool{}
	var walk func(descs []ocispec.Descriptor)
	walk = func(descs []ocispec.Descriptor) {
		for _, desc := range descs {
			if seen[desc.Digest] {
				continue
			}
			seen[desc.Digest] = true
			m, err := artifact.Parse(read(desc), desc.MediaType)
			if err != nil {
				t.Error(err)
				continue
			}
			for _, blob := range m.Blobs {
				read(blob)
			}
			walk(m.Manifests)
		}
	}
	walk(index.Manifests)
	return index
}

// imported imports the archive into the daemon, collects, and checks that the image is
// there under its name, and nothing else.
func imported(t *testing.T, d *daemon.Daemon, path, image string, target digest.Digest, flags ...string) {
	t.Helper()
	ctr(t, d, slices.Concat([]string{"images", "import", "--platform", "linux/amd64"}, flags, []string{path})...)
	collect(t, d)
	wantRecord(t, d, image, target)
}

// wantRecord fails unless the image is the only one, and its name stands for the target.
func wantRecord(t *testing.T, d *daemon.Daemon, image string, target digest.Digest) {
	t.Helper()
	list, err := d.Client.ImageService().List(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range list {
		if img.Name != image || img.Target.Digest != target {
			t.Errorf("there is an image %s of %s, want %s of %s alone", img.Name, img.Target.Digest, image, target)
		}
	}
	if len(list) != 1 {
		t.Errorf("%d images, want 1", len(list))
	}
}

// removed removes all images of the daemon, and fails where anything of them is left.
func removed(t *testing.T, d *daemon.Daemon) {
	t.Helper()
	if names := imageNames(t, d); len(names) > 0 {
		ctr(t, d, append([]string{"images", "rm", "--sync"}, names...)...)
	}
	wantNothing(t, d)
}
