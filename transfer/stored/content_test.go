package stored

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// missing returns a descriptor of what is not stored.
func missing(mediaType, content string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
}

// referring makes an index that is a referrer.
func (s *shelf) referring(entries ...ocispec.Descriptor) ocispec.Descriptor {
	return s.put(ocispec.MediaTypeImageIndex, ocispec.Index{ArtifactType: "text/index", MediaType: ocispec.MediaTypeImageIndex, Manifests: entries})
}

// What is not stored of a referrer, or is not what it says, is named.
func TestComplete(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	layer := s.put("text/plain", []byte("layer"))
	gone := missing("text/plain", "gone")
	s.put("", ocispec.DescriptorEmptyJSON.Data)
	whole, without := s.artifact("text/b", layer), s.artifact("text/c", layer, gone)
	wrong := layer
	wrong.Size++
	longer := whole
	longer.Size++
	goneManifest := missing(ocispec.MediaTypeImageManifest, "gone manifest")
	notJSON := s.put(ocispec.MediaTypeImageManifest, []byte("layers"))
	claims := s.put("text/plain", []byte("neither"))
	claims.MediaType = ocispec.MediaTypeImageIndex
	deep := s.referring(whole)
	for range artifact.MaxNesting {
		deep = s.referring(deep)
	}
	for _, tc := range []struct {
		name     string
		referrer ocispec.Descriptor
		names    digest.Digest // "" for one that is complete
		is       func(error) bool
	}{
		{"a manifest", whole, "", nil},
		{"a manifest twice in an index", s.referring(whole, whole), "", nil},
		{"an index of an index", s.referring(s.referring(whole), whole), "", nil},
		{"an index of nothing", s.referring(), "", nil},
		{"a layer that claims to be an index", s.artifact("text/d", claims), "", nil},
		{"an entry that is a blob", s.referring(layer), "", nil},
		{"an image's manifest that has lost nothing", s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[]}`)), "", nil},

		{"the referrer", goneManifest, goneManifest.Digest, errdefs.IsNotFound},
		{"a config", s.put(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: gone}), gone.Digest, errdefs.IsNotFound},
		{"a layer", without, gone.Digest, errdefs.IsNotFound},
		{"an entry that is a blob and gone", s.referring(gone), gone.Digest, errdefs.IsNotFound},
		{"a manifest of an index", s.referring(whole, goneManifest), goneManifest.Digest, errdefs.IsNotFound},
		{"a layer of a manifest of an index", s.referring(whole, s.referring(without)), gone.Digest, errdefs.IsNotFound},
		{"the referrer's size", longer, whole.Digest, errdefs.IsInvalidArgument},
		{"a layer's size", s.artifact("text/e", wrong), layer.Digest, errdefs.IsInvalidArgument},
		{"a manifest's size", s.referring(longer), whole.Digest, errdefs.IsInvalidArgument},
		{"a manifest that is none", s.referring(notJSON), notJSON.Digest, errdefs.IsInvalidArgument},
		{"a digest that is none", s.artifact("text/f", ocispec.Descriptor{MediaType: "text/plain", Digest: "sha256:..?x", Size: 1}), "sha256:..?x", nil},
		{"indexes that are too deep", deep, "", errdefs.IsResourceExhausted},
	} {
		err := Complete(s.ctx, s.store, tc.referrer)
		if (err == nil) != (tc.names == "" && tc.is == nil) || err != nil && (tc.is != nil && !tc.is(err) || !strings.Contains(err.Error(), tc.names.String())) {
			t.Errorf("%s: %v, want one that names %s", tc.name, err, tc.names)
		}
	}
}

// One reader of several referrers judges each for itself.
func TestReferrersAreCompleteEachForItself(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	s.put("", ocispec.DescriptorEmptyJSON.Data)
	layer, gone := s.put("text/plain", []byte("layer")), missing("text/plain", "gone")
	wrong := layer
	wrong.Size++
	child, broken := s.artifact("text/child", layer), s.artifact("text/broken", gone)
	longer := child
	longer.Size++
	good := []ocispec.Descriptor{s.artifact("text/a", layer), s.referring(child), s.referring(child, child, layer)}
	bad := []ocispec.Descriptor{s.artifact("text/b", wrong), s.artifact("text/c", gone), s.referring(longer), s.referring(child, broken), s.referring(broken), s.referring(child, wrong)}
	root := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[]}`), append(bad, good...)...)
	referrers, err := Referrers(s.ctx, s.store, root)
	if err != nil {
		t.Fatal(err)
	}
	found := map[digest.Digest]bool{}
	for _, r := range referrers {
		found[r.Digest] = true
	}
	for _, r := range good {
		if !found[r.Digest] {
			t.Errorf("%+v is complete, and left out", r)
		}
	}
	if len(found) != len(good) {
		t.Errorf("%d are complete, want %d: %+v", len(found), len(good), referrers)
	}
}

// Sizes cost a read of all manifests, which nobody pays who does not print them.
func TestAddSizes(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	empty := s.put("", ocispec.DescriptorEmptyJSON.Data)
	layer, other := s.put("text/plain", []byte("a layer of 21 bytes..")), missing("text/plain", "12 are gone.")
	a := s.artifact("text/a", layer, layer, other)
	b := s.artifact("text/b", layer)
	index := s.referring(a, b, a, s.referring(b, other))
	inner := s.referring(b, other)
	goneManifest := missing(ocispec.MediaTypeImageManifest, "gone")
	lies := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("lies"), Size: 1 << 62}
	more := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("more lies"), Size: 1 << 62}
	negative := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("negative"), Size: -5}
	deep := s.referring(a)
	for range artifact.MaxNesting {
		deep = s.referring(deep)
	}
	damaged := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":"none"}`))
	sizes := map[digest.Digest]int64{
		a.Digest:       empty.Size + layer.Size + other.Size,
		b.Digest:       empty.Size + layer.Size,
		index.Digest:   a.Size + b.Size + inner.Size + empty.Size + layer.Size + other.Size,
		damaged.Digest: 0,
	}
	others := map[string]struct {
		referrer ocispec.Descriptor
		size     int64
	}{
		"a manifest that is gone":          {s.referring(goneManifest, layer), goneManifest.Size + layer.Size},
		"sizes that are too much in all":   {s.artifact("text/lies", lies, more, layer), empty.Size + lies.Size + layer.Size},
		"a size that is none":              {s.artifact("text/negative", negative, layer), empty.Size + layer.Size},
		"what lies deeper than is read":    {deep, -1},
		"a layer that claims to be a list": {s.artifact("text/claims", index), empty.Size + index.Size},
	}
	tie := []ocispec.Descriptor{a, index, damaged}
	for _, o := range others {
		sizes[o.referrer.Digest] = o.size
		tie = append(tie, o.referrer)
	}
	s.tie(a, b, index) // a second place, below another referrer
	root := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[]}`), tie...)

	store := &counted{Store: s.store}
	image, err := Read(s.ctx, store, images.Image{Name: "app", Target: root})
	if err != nil {
		t.Fatal(err)
	}
	if want := 1 + 2*(len(tie)+1); store.calls > want { // Info and the manifest of each, and of none of their children
		t.Errorf("Read makes %d calls, want %d at most", store.calls, want)
	}
	var each func(referrers []Referrer, check func(Referrer))
	each = func(referrers []Referrer, check func(Referrer)) {
		for _, r := range referrers {
			check(r)
			each(r.Referrers, check)
		}
	}
	seen := 0
	each(image.Referrers, func(r Referrer) {
		if seen++; r.ContentSize != 0 {
			t.Errorf("%s has the size %d before it is added up", r.ArtifactType, r.ContentSize)
		}
	})
	if seen < len(tie)+2 {
		t.Fatalf("%d referrers", seen)
	}
	if err := AddSizes(s.ctx, store, image.Referrers); err != nil {
		t.Fatal(err)
	}
	each(image.Referrers, func(r Referrer) {
		if want := sizes[r.Digest]; want >= 0 && r.ContentSize != want || r.ContentSize < 0 {
			t.Errorf("%s %s has the size %d, want %d", r.ArtifactType, r.Digest, r.ContentSize, want)
		}
	})
}

// Manifests that several referrers name are held to a limit, and those beyond are read
// anew.
func TestReaderHoldsSoMuch(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	var children []ocispec.Descriptor
	for i := range 5 {
		children = append(children, s.put(ocispec.MediaTypeImageManifest, fmt.Appendf(nil, `{"layers":[],"x":"%d%s"}`, i, strings.Repeat("x", maxHeld/4))))
	}
	gone := missing(ocispec.MediaTypeImageManifest, "gone")
	store := &counted{Store: s.store}
	r := NewReader(store)
	for range 3 {
		for _, child := range append(children, gone) {
			if m, err := r.Child(s.ctx, child); (m == nil) != (child.Digest == gone.Digest) || (err == nil) != (m != nil) {
				t.Fatalf("%+v, %v", m, err)
			}
		}
	}
	if want := 3 + 2*3 + 1; store.calls != want { // three are held, two are read each time; one is gone, and stays so
		t.Errorf("%d calls, want %d", store.calls, want)
	}
	if r.held > maxHeld {
		t.Errorf("%d bytes are held, the limit is %d", r.held, maxHeld)
	}
}
