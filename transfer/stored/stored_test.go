package stored

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

type shelf struct {
	t     *testing.T
	ctx   context.Context
	store content.Store
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	return &shelf{t, namespaces.WithNamespace(t.Context(), "test"), storetest.New(t).ContentStore()}
}

func (s *shelf) put(mediaType string, v any, tied ...ocispec.Descriptor) ocispec.Descriptor {
	s.t.Helper()
	data, ok := v.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(v); err != nil {
			s.t.Fatal(err)
		}
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(s.ctx, s.store, desc.Digest.String(), bytes.NewReader(data), desc); err != nil {
		s.t.Fatal(err)
	}
	s.tie(desc, tied...)
	return desc
}

func (s *shelf) tie(subject ocispec.Descriptor, referrers ...ocispec.Descriptor) {
	s.t.Helper()
	var digests []digest.Digest
	for _, r := range referrers {
		digests = append(digests, r.Digest)
	}
	add := labels.TieLabels(nil, digests...)
	for k, v := range labels.Checkmark("present", time.Unix(1e9, 0)) {
		add[k] = v
	}
	if _, err := s.store.Update(s.ctx, content.Info{Digest: subject.Digest, Labels: add}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) artifact(artifactType string, blobs ...ocispec.Descriptor) ocispec.Descriptor {
	return s.put(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType, Config: ocispec.DescriptorEmptyJSON, Layers: blobs,
	})
}

func TestRead(t *testing.T) {
	s := newShelf(t)
	s.put("", ocispec.DescriptorEmptyJSON.Data)
	sig, sbom := s.artifact("text/signature"), s.artifact("text/sbom")
	s.tie(sbom, sig)
	gone := ocispec.Descriptor{Digest: digest.FromString("pruned by hand")}
	amd64 := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[]}`), sbom, gone)
	amd64.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm64 := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("not pulled"), Size: 5}
	index := s.put(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{amd64, arm64, amd64}}, sig)

	image, err := Read(s.ctx, s.store, images.Image{Name: "app", Target: index})
	if err != nil {
		t.Fatal(err)
	}
	if image.Status != labels.Present || image.Checked.Unix() != 1e9 || len(image.Subjects) != 2 || image.Subjects[1].Name() != "linux/amd64" {
		t.Errorf("image %+v", image)
	}
	if len(image.Referrers) != 2 {
		t.Fatalf("%d referrers, want 2: %+v", len(image.Referrers), image.Referrers)
	}
	first, second := image.Referrers[0], image.Referrers[1]
	if first.Subject != index.Digest || first.ArtifactType != "text/signature" {
		t.Errorf("of the index: %+v", first)
	}
	if second.Subject != amd64.Digest || second.ArtifactType != "text/sbom" || len(second.Referrers) != 1 || second.Referrers[0].Subject != sbom.Digest {
		t.Errorf("of the manifest: %+v", second)
	}
}

// An image that was never asked about is unknown, not absent.
func TestReadOfAnImageThatWasNeverAskedAbout(t *testing.T) {
	s := newShelf(t)
	root := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[]}`))
	if _, err := s.store.Update(s.ctx, content.Info{Digest: root.Digest}); err != nil {
		t.Fatal(err)
	}
	image, err := Read(s.ctx, s.store, images.Image{Name: "app", Target: root})
	if err != nil || image.Status != labels.Unknown || !image.Checked.IsZero() {
		t.Errorf("%+v, %v", image, err)
	}
}

// What was listed and not selected is told from what was never asked about.
func TestReadOfUnselectedReferrers(t *testing.T) {
	s := newShelf(t)
	root := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[]}`))
	read := func() *Image {
		t.Helper()
		image, err := Read(s.ctx, s.store, images.Image{Name: "app", Target: root})
		if err != nil {
			t.Fatal(err)
		}
		return image
	}
	asked := labels.Checkmark(labels.Present, time.Unix(1e9, 0))
	asked[labels.AskedKey] = "example.com/app"
	if _, err := s.store.Update(s.ctx, content.Info{Digest: root.Digest, Labels: asked}); err != nil {
		t.Fatal(err)
	}
	if i := read(); !i.Unselected || !i.Subjects[0].Unselected || i.Subjects[0].Repository != "example.com/app" {
		t.Errorf("of referrers that nothing selected: %+v", i)
	}
	s.put("", ocispec.DescriptorEmptyJSON.Data)
	s.tie(root, s.artifact("text/signature"))
	if i := read(); i.Unselected || i.Subjects[0].Unselected {
		t.Errorf("of one that was: %+v", i)
	}
}

// What is said of the whole image is no more than what is known of each subject that
// was asked about.
func TestStatusOfTheWholeImage(t *testing.T) {
	type answer struct {
		status string // "" = never asked
		at     int64
	}
	for _, tc := range []struct {
		name                string
		index, amd64, arm64 answer
		want                labels.Status
		checked             int64 // 0 = never
	}{
		{"a platform is unknown", answer{"absent", 20}, answer{"unknown", 30}, answer{}, labels.Unknown, 20},
		{"the index is unknown", answer{"unknown", 20}, answer{"absent", 10}, answer{}, labels.Unknown, 10},
		{"a platform is truncated", answer{"present", 20}, answer{"absent", 20}, answer{"truncated", 40}, labels.Truncated, 20},
		{"only a platform has any", answer{"absent", 20}, answer{"present", 20}, answer{}, labels.Present, 20},
		{"all are absent", answer{"absent", 20}, answer{"absent", 15}, answer{"absent", 30}, labels.Absent, 15},
		{"other platforms do not count", answer{"absent", 20}, answer{}, answer{}, labels.Absent, 20},
		{"a status of another version", answer{"absent", 20}, answer{"stale", 30}, answer{}, labels.Unknown, 20},
		{"the platform of another image", answer{}, answer{"absent", 10}, answer{}, labels.Unknown, 0},
		{"none was asked about", answer{}, answer{}, answer{}, labels.Unknown, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newShelf(t)
			mark := func(desc ocispec.Descriptor, a answer) {
				info := content.Info{Digest: desc.Digest}
				if a.status != "" {
					info.Labels = labels.Checkmark(labels.Status(a.status), time.Unix(a.at, 0))
				}
				if _, err := s.store.Update(s.ctx, info); err != nil {
					t.Fatal(err)
				}
			}
			amd64 := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[]}`))
			arm64 := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[] }`))
			index := s.put(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{amd64, arm64}})
			mark(index, tc.index)
			mark(amd64, tc.amd64)
			mark(arm64, tc.arm64)
			image, err := Read(s.ctx, s.store, images.Image{Name: "app", Target: index})
			if err != nil {
				t.Fatal(err)
			}
			if image.Status != tc.want {
				t.Errorf("status is %s, want %s", image.Status, tc.want)
			}
			if got := image.Checked; got.IsZero() != (tc.checked == 0) || !got.IsZero() && got.Unix() != tc.checked {
				t.Errorf("checked at %v, want %d", got, tc.checked)
			}
		})
	}
}

// Labels can lead in circles, and each step multiplies.
func TestCirclesEnd(t *testing.T) {
	s := newShelf(t)
	a, b, c := s.artifact("text/a"), s.artifact("text/b"), s.artifact("text/c")
	for _, d := range []ocispec.Descriptor{a, b, c} {
		s.tie(d, a, b, c)
	}
	done := make(chan *Image, 1)
	go func() {
		image, err := Read(s.ctx, s.store, images.Image{Name: "app", Target: a})
		if err != nil {
			t.Error(err)
		}
		done <- image
	}()
	select {
	case image := <-done:
		if len(image.Referrers) != 2 || len(image.Referrers[0].Referrers) != 1 {
			t.Errorf("%+v", image.Referrers)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
}

// One damaged referrer hides no other, and is not exported.
func TestDamagedReferrer(t *testing.T) {
	s := newShelf(t)
	s.put("", ocispec.DescriptorEmptyJSON.Data)
	damaged := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":"none"}`))
	half := s.artifact("text/half", ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("missing"), Size: 7})
	good := s.artifact("text/good")
	root := s.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[]}`), damaged, half, good)
	image, err := Read(s.ctx, s.store, images.Image{Name: "app", Target: root})
	if err != nil || len(image.Referrers) != 3 {
		t.Fatalf("%+v, %v", image, err)
	}
	whole, err := Referrers(s.ctx, s.store, root)
	if err != nil || len(whole) != 1 || whole[0].Digest != good.Digest {
		t.Errorf("provided are %+v, %v", whole, err)
	}
}
