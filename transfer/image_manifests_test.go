package transfer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

var amd64 = []ocispec.Platform{platforms.MustParse("linux/amd64")}

// Without a transfer of the image, the same is asked about as in a pull of it, whether
// it is stored or not.
func TestWhatAPullAsksAboutIsExplained(t *testing.T) {
	for _, remote := range []bool{false, true} {
		t.Run(fmt.Sprintf("remote %t", remote), func(t *testing.T) {
			b := newBench(t)
			b.remote = remote
			root, want := whatCanBeRun(b)
			p := b.query()
			p.gather.Image(root)
			told, err := p.addManifests(b.ctx, root, amd64, nil)
			if err != nil {
				t.Fatal(err)
			}
			if told.manifests == 0 || len(told.platformOf) == 0 {
				t.Errorf("told of %+v", told)
			}
			for dgst, platform := range told.platformOf {
				if platform != "linux/amd64" {
					t.Errorf("%s is for %s", b.named[digest.Digest(dgst)], platform)
				}
			}
			wantAsked(t, b.asked(p), want)
		})
	}
}

// An index that no honest image holds is named, and ends the walk.
func TestAbsurdIndexes(t *testing.T) {
	b := newBench(t)
	b.remote = true
	deep := b.index("deepest", on("linux/amd64", b.manifest("app")))
	for i := range stored.MaxImageNesting {
		deep = b.index(fmt.Sprintf("level %d", i), deep)
	}
	if _, err := b.query().addManifests(b.ctx, deep, amd64, nil); err != nil {
		t.Errorf("%d levels: %v", stored.MaxImageNesting, err)
	}
	tooDeep := b.index("too deep", deep)
	var many []ocispec.Descriptor
	for i := range stored.MaxImageManifests / 2 {
		many = append(many, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Size: 1})
	}
	half := b.index("half", many...)
	noIndex := b.put("no index", ocispec.MediaTypeImageIndex, []byte(`{"manifests":{}}`))
	misnamed := b.put("misnamed", ocispec.MediaTypeImageIndex, []byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:beef","size":1}]}`))
	other := b.index("other")
	b.blobs[other.Digest] = []byte(`{"manifests":[null]}`)
	huge := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("huge"), Size: 1 << 40}
	for _, c := range []struct {
		name string
		root ocispec.Descriptor
		is   func(error) bool
		text []string
	}{
		{"too deep", tooDeep, errdefs.IsResourceExhausted, []string{"deeper in the image than the limit of 8"}},
		{"too much", b.index("root", half, b.index("other half", append(many, half)...)), errdefs.IsResourceExhausted, []string{"over the limit of 10000 manifests"}},
		{"no index", b.index("root", noIndex), nil, []string{noIndex.Digest.String()}},
		{"a digest that is none", b.index("root", misnamed), errdefs.IsInvalidArgument, []string{misnamed.Digest.String(), "sha256:beef"}},
		{"other content", b.index("root", other), nil, []string{other.Digest.String()}},
		{"not there", b.index("root", ocispec.Descriptor{MediaType: images.MediaTypeDockerSchema2ManifestList, Digest: digest.FromString("gone"), Size: 3}), errdefs.IsNotFound, []string{digest.FromString("gone").String()}},
		{"huge", b.index("root", huge), errdefs.IsResourceExhausted, []string{huge.Digest.String()}},
	} {
		p := b.query()
		_, err := p.addManifests(b.ctx, c.root, amd64, nil)
		if err == nil || c.is != nil && !c.is(err) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, text := range append(c.text, "image "+p.name, "index sha256:") {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v lacks %q", c.name, err, text)
			}
		}
	}
}

// An index that the disk lost bytes of is an error, and not the end of the daemon.
func TestDamagedIndexInTheStore(t *testing.T) {
	b := newBench(t)
	nested := b.index("nested", on("linux/amd64", b.manifest("app")))
	root := b.index("root", nested)
	path := filepath.Join(b.dir, "blobs", "sha256", nested.Digest.Encoded())
	if err := os.Chmod(path, 0o600); err != nil { // what is no blob's path fails here
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte(" "), int(nested.Size)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := b.query().addManifests(b.ctx, root, amd64, nil)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "index "+nested.Digest.String()) {
		t.Errorf("%v, want one that names the index", err)
	}
}
