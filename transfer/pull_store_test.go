package transfer

import (
	"maps"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	imagestore "github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func attestation(desc ocispec.Descriptor) ocispec.Descriptor {
	desc.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest.FromString("x").String()}
	return desc
}

// whatCanBeRun is an image with all the ways in which an index names a manifest that
// linux/amd64 runs, and some that it does not, and below which indexes they lie.
func whatCanBeRun(b *bench) (root ocispec.Descriptor, want map[string][]string) {
	deepest := b.index("deepest", on("linux/amd64", b.manifest("in deepest")), on("linux/arm64", b.manifest("of another platform, in deepest")))
	nested := b.index("nested", on("linux/amd64", b.manifest("in nested")), b.manifest("of no platform, in nested"), deepest)
	shared := on("linux/amd64", b.manifest("in two"))
	root = b.index("root",
		on("linux/amd64", b.manifest("plain")),
		on("linux/arm64", b.manifest("of another platform")),
		b.manifest("of no platform"),
		shared,
		attestation(on("linux/amd64", b.manifest("called an attestation"))),
		attestation(b.manifest("called an attestation, of no platform")),
		attestation(on("unknown/unknown", b.manifest("an attestation"))),
		on("linux/arm64", b.index("nested, of another platform", b.manifest("in that"))),
		on("linux/amd64", b.index("nested, of the platform", shared)),
		nested)
	return root, map[string][]string{
		"root": {}, "nested": {"root"}, "in nested": {"nested"}, "of no platform, in nested": {"nested"},
		"deepest": {"nested"}, "in deepest": {"deepest"},
		"plain": {"root"}, "of no platform": {"root"},
		"called an attestation": {"root"}, "called an attestation, of no platform": {"root"},
		"nested, of the platform": {"root"}, "in two": {"root", "nested, of the platform"},
	}
}

func wantAsked(t *testing.T, got, want map[string][]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have, ok := got[name]; !ok || !slices.Equal(have, want[name]) {
			t.Errorf("%s: asked about %t, below %q, want below %q", name, ok, have, want[name])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s was asked about", name)
		}
	}
}

// Whatever containerd may come to run has been asked about, however an index names it.
func TestWhatCanBeRunIsAskedAbout(t *testing.T) {
	b := newBench(t)
	root, want := whatCanBeRun(b)
	p := b.query()
	p.gather.Image(root)
	store := &pullStore{destination: destination{imagestore.NewStore("app", imagestore.WithPlatforms(platforms.MustParse("linux/amd64")))}, p: &pull{query: p}}
	if err := images.Dispatch(b.ctx, store.ImageFilter(images.ChildrenHandler(b.store), b.store), nil, root); err != nil {
		t.Fatal(err)
	}
	wantAsked(t, b.asked(p), want)
}
