package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

func named(desc ocispec.Descriptor, name string) ocispec.Descriptor {
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	return desc
}

// tagged is an entry under a tag that is made of another's digest.
func tagged(desc, subject ocispec.Descriptor, suffix string) ocispec.Descriptor {
	return named(desc, "sha256-"+subject.Digest.Encoded()+suffix)
}

func refers(desc, subject ocispec.Descriptor) string {
	return fmt.Sprint(desc.Digest, " ", subject.Digest)
}

// wantSorted checks which of an index.json's entries may be images, and what refers to
// what.
func (s *shelf) wantSorted(entries, maybeImages []ocispec.Descriptor, referrers ...string) {
	s.t.Helper()
	contents, err := Scan(s.ctx, s.store, entries)
	if err != nil {
		s.t.Fatal(err)
	}
	gotImages, others, found := contents.Sort(entries)
	digestsOf := func(descs []ocispec.Descriptor) (out []digest.Digest) {
		for _, d := range descs {
			out = append(out, d.Digest)
		}
		return out
	}
	if got, want := digestsOf(gotImages), digestsOf(maybeImages); !slices.Equal(got, want) {
		s.t.Errorf("these may be images:\n got %v\nwant %v", got, want)
	}
	if len(gotImages)+len(others) != len(entries) {
		s.t.Errorf("%d and %d entries of %d", len(gotImages), len(others), len(entries))
	}
	var got []string
	for _, r := range found {
		got = append(got, refers(r, ocispec.Descriptor{Digest: Subject(r)}))
	}
	slices.Sort(got)
	slices.Sort(referrers)
	if !slices.Equal(got, referrers) {
		s.t.Errorf("these refer to something:\n got %q\nwant %q", got, referrers)
	}
}

// A manifest of the archive is known by its subject field, wherever the archive names it.
func TestSortBySubjectField(t *testing.T) {
	s := newShelf(t)
	manifest := s.artifact("image", nil)
	image := named(s.index(nil, manifest), "v1")
	a, b := s.artifact("a", &image), s.artifact("b", &manifest)
	c := s.artifact("c", &b)
	listing := tagged(s.index(nil, b), manifest, "")
	s.wantSorted([]ocispec.Descriptor{image, a, listing, s.index(nil, c)}, []ocispec.Descriptor{image, s.index(nil, c)},
		refers(a, image), refers(b, manifest), refers(c, b))
	// One with a name of its own is an image as well, and one that refers to nothing is one.
	sbom := named(a, "sbom")
	s.wantSorted([]ocispec.Descriptor{image, sbom, manifest}, []ocispec.Descriptor{image, sbom, manifest}, refers(a, image))
}

// What index.json says of an entry is the only thing that is believed of it: where that is
// wrong, Restore leaves the entry out.
func TestSortByAnnotation(t *testing.T) {
	s := newShelf(t)
	image, other := named(s.artifact("image", nil), "v1"), s.artifact("other", nil)
	r := s.artifact("a", &image)
	impostor := carried(r, other)
	impostor.Annotations[images.AnnotationImageName] = "v1"
	s.wantSorted([]ocispec.Descriptor{image, impostor}, []ocispec.Descriptor{image}, refers(r, other))
}

// A layer is a blob, whatever it looks like: it is no manifest of the archive until that
// names it as one.
func TestBlobThatLooksLikeAManifestIsNone(t *testing.T) {
	s := newShelf(t)
	image := named(s.artifact("image", nil), "v1")
	layer := s.artifact("signature", &image)
	lister := s.index(nil, layer)
	sbom := s.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "text/sbom", Config: ocispec.DescriptorEmptyJSON,
		Layers: []ocispec.Descriptor{layer, lister}, Subject: &image,
	})
	s.wantSorted([]ocispec.Descriptor{image, sbom}, []ocispec.Descriptor{image}, refers(sbom, image))
	s.wantSorted([]ocispec.Descriptor{image, sbom, lister}, []ocispec.Descriptor{image, lister}, refers(sbom, image), refers(layer, image))
}

// What cosign stored under a tag refers to the image that the tag names, if that is in
// the archive. It is an image where it is exported as one.
func TestSortByCosignsTag(t *testing.T) {
	s := newShelf(t)
	image := named(s.artifact("image", nil), "v1")
	signature := s.artifact("signature", nil)
	sig := tagged(signature, image, ".sig")
	s.wantSorted([]ocispec.Descriptor{image, sig}, []ocispec.Descriptor{image}, refers(signature, image))
	s.wantSorted([]ocispec.Descriptor{sig}, []ocispec.Descriptor{sig})
	// A subject field says more than a tag.
	other := s.artifact("other", nil)
	r := s.artifact("a", &other)
	s.wantSorted([]ocispec.Descriptor{image, tagged(r, image, ".att"), other}, []ocispec.Descriptor{image, other}, refers(r, other))
}

// Under cosign's tag is what the tag says, or nothing.
func TestRestoreByCosignsTag(t *testing.T) {
	s := newShelf(t)
	image := s.artifact("image", nil)
	signature, sbom := s.untyped("application/vnd.dev.cosign.simplesigning.v1+json"), s.untyped("text/spdx+json")
	entries := []ocispec.Descriptor{
		named(image, "v1"),
		tagged(signature, image, ".sig"),
		tagged(signature, image, ".att"),
		tagged(sbom, image, ".sig"),
		tagged(s.untyped(ocispec.MediaTypeImageLayerGzip), image, ".sbom"), // an image
		tagged(s.artifact("other", nil), image, ".sbom"),
		tagged(image, image, ".sig"), // the subject itself
	}
	contents, err := Scan(s.ctx, s.store, entries)
	if err != nil {
		t.Fatal(err)
	}
	maybeImages, _, referrers := contents.Sort(entries)
	if len(maybeImages) != 1 || len(referrers) != 6 {
		t.Fatalf("%d may be images, %d refer to something", len(maybeImages), len(referrers))
	}
	s.restore(1, image, referrers...)
	s.wantTied(image, signature)
}

// An archive that names more manifests than are read is still sorted, and reading ends
// with its context.
func TestScanIsBounded(t *testing.T) {
	s := newShelf(t)
	image := named(s.artifact("image", nil), "v1")
	entries := []ocispec.Descriptor{image}
	for i := range maxManifests {
		entries = append(entries, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Size: 1})
	}
	late := s.artifact("late", &image)
	annotated := carried(s.artifact("annotated", &image), image)
	entries = append(entries, late, annotated)
	contents, err := Scan(s.ctx, s.store, entries)
	if err != nil {
		t.Fatal(err)
	}
	maybeImages, _, referrers := contents.Sort(entries)
	if len(maybeImages) != len(entries)-1 || len(referrers) != 1 || referrers[0].Digest != annotated.Digest {
		t.Errorf("%d of %d may be images, %v refer to something", len(maybeImages), len(entries), referrers)
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	ended := errors.New("ended")
	cancel(ended)
	if _, err := Scan(ctx, s.store, entries); !errors.Is(err, ended) {
		t.Errorf("it ends with %v", err)
	}
}

// Manifests of OCI artifacts, which have no config, and indexes of nothing refer to their
// subjects as well.
func TestSortOfOtherManifests(t *testing.T) {
	s := newShelf(t)
	image := named(s.artifact("image", nil), "v1")
	old := s.putJSON(artifact.MediaTypeArtifactManifest, map[string]any{
		"mediaType": artifact.MediaTypeArtifactManifest, "artifactType": "text/old", "subject": artifact.Plain(image),
	})
	empty := s.index(&image)
	s.wantSorted([]ocispec.Descriptor{image, old, empty}, []ocispec.Descriptor{image}, refers(old, image), refers(empty, image))
}
