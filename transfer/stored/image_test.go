package stored

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (s *shelf) index(children ...ocispec.Descriptor) ocispec.Descriptor {
	s.t.Helper()
	return s.put(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: children})
}

// What refers to the manifests of an index within the image's is read too, each once.
func TestReadOfNestedIndexes(t *testing.T) {
	s := newShelf(t)
	s.put("", ocispec.DescriptorEmptyJSON.Data)
	sbom, sig := s.artifact("text/sbom"), s.artifact("text/signature")
	amd64 := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[]}`), sbom)
	deepest := s.index(amd64)
	nested := s.index(deepest, amd64)
	s.tie(nested, sig)
	notPulled := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("not pulled"), Size: 5}
	last := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[] }`))
	root := s.index(notPulled, nested, last, nested)
	s.tie(deepest)
	s.tie(root)

	image, err := Read(s.ctx, s.store, images.Image{Name: "app", Target: root})
	if err != nil {
		t.Fatal(err)
	}
	var subjects []digest.Digest
	for _, subject := range image.Subjects {
		subjects = append(subjects, subject.Digest)
	}
	if want := []digest.Digest{root.Digest, nested.Digest, deepest.Digest, amd64.Digest, last.Digest}; !slices.Equal(subjects, want) {
		t.Errorf("subjects %v, want %v", subjects, want)
	}
	found := map[string]digest.Digest{}
	for _, r := range image.Referrers {
		found[r.ArtifactType] = r.Subject
	}
	if len(image.Referrers) != 2 || found["text/sbom"] != amd64.Digest || found["text/signature"] != nested.Digest {
		t.Errorf("referrers %+v", image.Referrers)
	}
}

// An image whose indexes are damaged, too deep or too many is named by its index.
func TestReadOfAbsurdIndexes(t *testing.T) {
	s := newShelf(t)
	deep := s.index()
	for i := range MaxImageNesting {
		deep = s.put(ocispec.MediaTypeImageIndex, ocispec.Index{
			Manifests: []ocispec.Descriptor{deep}, Annotations: map[string]string{"level": fmt.Sprint(i)},
		})
	}
	if _, err := Read(s.ctx, s.store, images.Image{Name: "app", Target: deep}); err != nil {
		t.Errorf("%d levels: %v", MaxImageNesting, err)
	}
	var many []ocispec.Descriptor
	for i := range MaxImageManifests / 2 {
		many = append(many, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Size: 1})
	}
	damaged := s.put(ocispec.MediaTypeImageIndex, []byte(`{"manifests":"none"}`))
	otherSize := s.index(damaged)
	otherSize.Size++
	half := s.index(many...)
	for name, c := range map[string]struct {
		root ocispec.Descriptor
		is   func(error) bool
		text string
	}{
		"too deep":          {s.index(deep), errdefs.IsResourceExhausted, "deeper in the image than the limit of 8"},
		"too many":          {s.index(half, s.index(append(many, half)...)), errdefs.IsResourceExhausted, "over the limit of 10000 manifests"},
		"damaged":           {s.index(damaged), nil, damaged.Digest.String()},
		"of another size":   {s.index(otherSize), errdefs.IsInvalidArgument, otherSize.Digest.String()},
		"a root that is no": {damaged, nil, damaged.Digest.String()},
	} {
		_, err := Read(s.ctx, s.store, images.Image{Name: "app", Target: c.root})
		if err == nil || c.is != nil && !c.is(err) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, text := range []string{"image app: index sha256:", c.text} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v lacks %q", name, err, text)
			}
		}
	}
}
