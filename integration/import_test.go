package integration

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	carchive "github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// exported pulls the fixture, what cosign v2 stored with it, into a daemon of its
// own, and returns that, the image and an archive of it by the plugin.
func exported(t *testing.T, f *fixture.Fixture, flags ...string) (*daemon.Daemon, string, string) {
	t.Helper()
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	if err := f.PushCosignTags(testContext(t), reg, "app"); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, active("cosign_tags = \"always\"\n"+everything))
	image := reg.Host + "/app:v1"
	pull(t, d, image, flags...)
	path := filepath.Join(t.TempDir(), "image.tar")
	export(t, d, path, append(append([]string{"--platform", "linux/amd64"}, flags...), path, image)...)
	return d, image, path
}

// imageNames returns the names of all image records.
func imageNames(t *testing.T, d *daemon.Daemon) []string {
	t.Helper()
	list, err := d.Client.ImageService().List(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, img := range list {
		names = append(names, img.Name)
	}
	return names
}

// An import gives back what the export carried: the same referrers under the same
// subjects, those without a subject field too, living and dying with the image,
// and no image record for any of them.
func TestImportRestores(t *testing.T) {
	f := loadFixture(t)
	from, image, path := exported(t, f)
	want := ls(t, from, image)
	if len(want.Referrers) < 8 {
		t.Fatalf("the fixture is not whole: %q", names(f, want.Referrers))
	}
	for _, flags := range [][]string{nil, {"--digests"}, {"--no-unpack"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			d := startDaemon(t, active(everything))
			ctr(t, d, append(append([]string{"images", "import", "--platform", "linux/amd64"}, flags...), path)...)
			got := ls(t, d, image)
			wantNames(t, f, got, names(f, want.Referrers)...)
			types := func(rs []stored.Referrer) map[digest.Digest]string {
				out := map[digest.Digest]string{}
				for _, r := range rs {
					out[r.Digest] = r.Subject.String() + " " + r.ArtifactType
				}
				return out
			}
			wantTypes, gotTypes := types(want.Referrers), types(got.Referrers)
			for dgst, w := range wantTypes {
				if gotTypes[dgst] != w {
					t.Errorf("%s is %q, was %q", f.Name(dgst), gotTypes[dgst], w)
				}
			}
			collect(t, d)
			for _, name := range []string{fixture.CosignSignature, fixture.SBOM, fixture.SBOMSignature, fixture.LegacySignature} {
				wantWhole(t, f, d, name)
			}
			for _, name := range imageNames(t, d) {
				for _, r := range want.Referrers { // the archive's own index is one with --digests
					if strings.Contains(name, r.Digest.String()) {
						t.Errorf("an image record was made: %s", name)
					}
				}
			}
			wantClean(t, d)
			ctr(t, d, append([]string{"images", "rm", "--sync"}, imageNames(t, d)...)...)
			if left := contents(t, d); len(left) > 0 {
				t.Errorf("content was left after the image: %v", left)
			}
		})
	}
}

// Only what refers to the platforms that are imported is kept.
func TestImportOnePlatformOfTwo(t *testing.T) {
	f := loadFixture(t)
	_, image, path := exported(t, f, "--platform", "linux/arm64")
	d := startDaemon(t, active(everything))
	ctr(t, d, "images", "import", "--platform", "linux/amd64", path)
	collect(t, d)
	read := ls(t, d, image)
	if got := names(f, read.Referrers); !slices.Contains(got, fixture.SBOM) || slices.Contains(got, fixture.SBOMARM64) {
		t.Errorf("stored are %q", got)
	}
	if slices.Contains(contents(t, d), f.Get(fixture.SBOMARM64).Digest) {
		t.Errorf("%s is stored, of a platform that was not imported", fixture.SBOMARM64)
	}
}

// An archive by containerd's own client, given referrers, is read as well. That
// client asks for those of platform manifests, and not of the index.
func TestImportFromContainerdsClient(t *testing.T) {
	f := loadFixture(t)
	from, image, _ := exported(t, f)
	path := filepath.Join(t.TempDir(), "client.tar")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	err = from.Client.Export(testContext(t), file,
		carchive.WithImage(from.Client.ImageService(), image), carchive.WithPlatform(platforms.OnlyStrict(amd64)),
		carchive.WithReferrersProvider(stored.Provider(from.Client.ContentStore())))
	if err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, active(everything))
	ctr(t, d, "images", "import", "--platform", "linux/amd64", path)
	collect(t, d)
	got := names(f, ls(t, d, image).Referrers)
	for _, name := range []string{fixture.SBOM, fixture.SBOM + "/" + fixture.SBOMSignature, fixture.VEX} {
		if !slices.Contains(got, name) {
			t.Errorf("%s is not restored, only %q", name, got)
		}
	}
	if names := imageNames(t, d); !slices.Equal(names, []string{image}) {
		t.Errorf("image records: %q", names)
	}
}

// Stock containerd takes an archive with referrers as it takes any: by its transfer
// service and by its client, and nothing is left when the image goes.
func TestStockImportsOurArchive(t *testing.T) {
	f := loadFixture(t)
	_, image, path := exported(t, f)
	for _, flags := range [][]string{nil, {"--local"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			d := startDaemon(t, stock)
			ctr(t, d, append(append([]string{"images", "import", "--platform", "linux/amd64"}, flags...), path)...)
			if out := ctr(t, d, "images", "check"); !strings.Contains(out, "complete") {
				t.Errorf("the image is not complete: %s", out)
			}
			if names := imageNames(t, d); !slices.Equal(names, []string{image}) {
				t.Errorf("image records: %q", names)
			}
			ctr(t, d, "images", "rm", "--sync", image)
			if left := contents(t, d); len(left) > 0 {
				t.Errorf("content was left after the image: %v", left)
			}
		})
	}
}

// rewritten copies an archive with another index.json, and without some blobs.
func rewritten(t *testing.T, path string, change func(*ocispec.Index), without ...digest.Digest) string {
	t.Helper()
	in, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for r := tar.NewReader(bytes.NewReader(in)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(without, digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(h.Name))) {
			continue
		}
		if h.Name == ocispec.ImageIndexFile {
			var index ocispec.Index
			if err := json.Unmarshal(data, &index); err != nil {
				t.Fatal(err)
			}
			change(&index)
			if data, err = json.Marshal(index); err != nil {
				t.Fatal(err)
			}
			h.Size = int64(len(data))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), "rewritten.tar")
	if err := os.WriteFile(changed, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return changed
}

func rewrittenWithout(t *testing.T, path string, dgst digest.Digest) string {
	return rewritten(t, path, func(*ocispec.Index) {}, dgst)
}

// What an archive says of its referrers is checked: one that is not whole, lies
// about its subject, or is nothing that it could be, is left out. The image comes in.
func TestImportOfReferrersThatLie(t *testing.T) {
	f := loadFixture(t)
	_, image, path := exported(t, f)
	of := func(index *ocispec.Index, name string) *ocispec.Descriptor {
		for i := range index.Manifests {
			if index.Manifests[i].Digest == f.Get(name).Digest {
				return &index.Manifests[i]
			}
		}
		t.Fatalf("%s is not in the archive", name)
		return nil
	}
	subject := func(name string) map[string]string {
		return map[string]string{images.AnnotationManifestSubject: f.Get(name).Digest.String()}
	}
	for _, tc := range []struct {
		name    string
		change  func(*ocispec.Index)
		without []digest.Digest
		says    string
	}{
		{"another subject", func(i *ocispec.Index) { of(i, fixture.Notation).Annotations = subject(fixture.AMD64) }, nil, "its manifest's subject is"},
		{"a subject that is not there", func(i *ocispec.Index) { of(i, fixture.Notation).Annotations = subject(fixture.ARM64) }, nil, ""},
		{"a blob is missing", func(*ocispec.Index) {}, f.Content(fixture.Notation)[2:3], "not found"},
		{"the manifest is missing", func(*ocispec.Index) {}, f.Content(fixture.Notation)[:1], "not found"},
		{"another size", func(i *ocispec.Index) { of(i, fixture.Notation).Size++ }, nil, "bytes"},
		{"a digest that is a path", func(i *ocispec.Index) { of(i, fixture.Notation).Digest = "sha256:../../../etc/passwd" }, nil, "digest"},
		{"a layer", func(i *ocispec.Index) {
			d := of(i, fixture.Notation)
			d.Digest, d.Size = f.Content(fixture.Notation)[2], 1
		}, nil, "bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := startDaemon(t, active(everything))
			ctr(t, d, "images", "import", "--platform", "linux/amd64", rewritten(t, path, tc.change, tc.without...))
			got := names(f, ls(t, d, image).Referrers)
			if slices.Contains(got, fixture.Notation) || !slices.Contains(got, fixture.CosignSignature) {
				t.Errorf("restored are %q", got)
			}
			if lines := d.LogLines("referrers: not imported"); len(lines) != 1 || !strings.Contains(lines[0], tc.says) {
				t.Errorf("the log does not say %q: %q", tc.says, lines)
			}
		})
	}
}
