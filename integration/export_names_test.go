package integration

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// A referrer that could be run, and calls itself by the image's own name, takes that name
// neither in an archive nor by an import of it, whoever imports.
func TestReferrerCannotReplaceTheImageInAnArchive(t *testing.T) {
	reg := startRegistry(t, registry.Olareg)
	index, manifest := pushIndexed(t, reg, "v1", "image")
	image := reg.Host + "/app:v1"
	evil := pushSmall(t, reg, "app", "", "evil")
	var m ocispec.Manifest
	if err := json.Unmarshal([]byte(manifestOf(t, reg, "app", evil.Digest)), &m); err != nil {
		t.Fatal(err)
	}
	m.ArtifactType = "application/vnd.example.evil"
	evils := map[digest.Digest]digest.Digest{} // with their subjects
	for _, subject := range []ocispec.Descriptor{manifest, index} {
		for _, name := range []string{image, reg.Host + "/app@" + index.Digest.String(), "v1"} {
			m.Subject = &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
			m.Annotations = map[string]string{
				images.AnnotationImageName: name, ocispec.AnnotationRefName: "v1",
				"containerd.io/gc.root": "2026-11-26T00:00:00Z", "containerd.io/gc.ref.content.0": index.Digest.String(),
				"containerd.io/distribution.source.example.com": "app",
				"io.containerd.import.ref-source":               "annotation",
				images.AnnotationManifestSubject:                evil.Digest.String(),
			}
			evils[put(t, reg, "", ocispec.MediaTypeImageManifest, m).Digest] = subject.Digest
		}
	}

	d := startDaemon(t, active(everything))
	pull(t, d, image)
	path := exportedFrom(t, d, image)
	got := map[digest.Digest]digest.Digest{}
	for _, entry := range wantWholeArchive(t, path).Manifests {
		if entry.Digest == index.Digest {
			continue
		}
		got[entry.Digest] = digest.Digest(entry.Annotations[images.AnnotationManifestSubject])
		if len(entry.Annotations) != 1 {
			t.Errorf("%s has annotations %v", entry.Digest, entry.Annotations)
		}
	}
	if !reflect.DeepEqual(got, evils) {
		t.Errorf("the archive has\n %v, want\n %v", got, evils)
	}

	for name, config := range map[string]daemon.Config{"plugin": active(everything), "stock": {Binary: stockBinary(t)}} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, config)
			imported(t, d, path, image, index.Digest)
			if name == "stock" {
				removed(t, d)
				return // which gives each entry of an archive a record by --digests
			}
			if out := ctr(t, d, "images", "check"); !strings.Contains(out, "complete") {
				t.Errorf("the image is not complete: %s", out)
			}
			if got := len(ls(t, d, image).Referrers); got != len(evils) {
				t.Errorf("%d referrers are tied, want %d", got, len(evils))
			}
			removed(t, d)
			ctr(t, d, "images", "import", "--platform", "linux/amd64", "--digests", path)
			wantNoRecords(t, d, slices.Collect(maps.Keys(evils)))
			removed(t, d)
		})
	}
}

// What an archive calls a referrer becomes no image, whatever name it has there: an older
// version of this plugin wrote what the referrer's manifest said of itself.
func TestImportMakesNoImageOfAReferrer(t *testing.T) {
	const image = "example.com/app:v1"
	build := func(annotations map[string]string, first bool, of func(index, manifest ocispec.Descriptor) ocispec.Descriptor) (path string, index ocispec.Descriptor, evil ocispec.Descriptor) {
		l := newLayout(t)
		index, manifest := l.image(image)
		subject := of(index, manifest)
		// It could be run, but not unpacked.
		evil = l.manifest(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["`+digest.FromString("evil").String()+`"]}}`, ocispec.MediaTypeImageLayer, "evil", &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size})
		l.carry(evil, subject)
		maps.Copy(l.index.Manifests[1].Annotations, annotations)
		if first {
			slices.Reverse(l.index.Manifests)
		}
		return l.write(), index, evil
	}
	d := startDaemon(t, active(everything))
	for _, tc := range []struct {
		name        string
		annotations map[string]string
		flags       []string
	}{
		{"the image's name", map[string]string{images.AnnotationImageName: image}, nil},
		{"the image's name and tag", map[string]string{images.AnnotationImageName: image, ocispec.AnnotationRefName: "v1"}, nil},
		{"the image's tag", map[string]string{ocispec.AnnotationRefName: "v1"}, []string{"--base-name", "example.com/app"}},
		{"a digest", map[string]string{images.AnnotationImageName: "example.com/app@" + digest.FromString("a").String()}, nil},
		{"another name", map[string]string{images.AnnotationImageName: "example.com/other:v1"}, nil},
		{"no name, and digests are asked for", nil, []string{"--digests"}},
		{"the image's name, and no unpacking", map[string]string{images.AnnotationImageName: image}, []string{"--no-unpack"}},
	} {
		for name, of := range map[string]func(index, manifest ocispec.Descriptor) ocispec.Descriptor{
			"after the index":     func(index, _ ocispec.Descriptor) ocispec.Descriptor { return index },
			"before the manifest": func(_, manifest ocispec.Descriptor) ocispec.Descriptor { return manifest },
		} {
			t.Run(tc.name+", "+name, func(t *testing.T) {
				path, index, evil := build(tc.annotations, strings.HasPrefix(name, "before"), of)
				if slices.Contains(tc.flags, "--digests") { // which gives the archive's own index a record
					ctr(t, d, slices.Concat([]string{"images", "import", "--platform", "linux/amd64"}, tc.flags, []string{path})...)
					wantNoRecords(t, d, []digest.Digest{evil.Digest})
				} else {
					imported(t, d, path, image, index.Digest, tc.flags...)
				}
				if read := ls(t, d, image); len(read.Referrers) != 1 || read.Referrers[0].Digest != evil.Digest {
					t.Errorf("tied are %+v, want %s", read.Referrers, evil.Digest)
				}
				removed(t, d)
			})
		}
	}
}

// wantNoRecords fails where one of the digests is an image.
func wantNoRecords(t *testing.T, d *daemon.Daemon, digests []digest.Digest) {
	t.Helper()
	list, err := d.Client.ImageService().List(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range list {
		if slices.Contains(digests, img.Target.Digest) {
			t.Errorf("an image record was made: %s of %s", img.Name, img.Target.Digest)
		}
	}
}
