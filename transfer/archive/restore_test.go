package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// shelf is a real content store into which an archive was read.
type shelf struct {
	t     *testing.T
	ctx   context.Context
	store content.Store
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{t, namespaces.WithNamespace(t.Context(), "test"), storetest.New(t).ContentStore()}
	s.put(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	return s
}

func (s *shelf) put(mediaType string, data []byte) ocispec.Descriptor {
	s.t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(s.ctx, s.store, desc.Digest.String(), bytes.NewReader(data), desc); err != nil {
		s.t.Fatal(err)
	}
	return desc
}

func (s *shelf) putJSON(mediaType string, v any) ocispec.Descriptor {
	s.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.put(mediaType, data)
}

func (s *shelf) artifact(name string, subject *ocispec.Descriptor) ocispec.Descriptor {
	return s.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "text/" + name, Config: ocispec.DescriptorEmptyJSON, Subject: subject,
	})
}

func (s *shelf) index(subject *ocispec.Descriptor, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	return s.putJSON(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests, Subject: subject})
}

func (s *shelf) labels(desc ocispec.Descriptor) map[string]string {
	s.t.Helper()
	info, err := s.store.Info(s.ctx, desc.Digest)
	if err != nil {
		s.t.Fatal(err)
	}
	return info.Labels
}

func (s *shelf) wantTied(subject ocispec.Descriptor, want ...ocispec.Descriptor) {
	s.t.Helper()
	var digests []digest.Digest
	for _, d := range want {
		digests = append(digests, d.Digest)
	}
	slices.Sort(digests)
	if got := labels.Referrers(s.labels(subject)); !slices.Equal(got, digests) {
		s.t.Errorf("tied to %s:\n got %v\nwant %v", subject.Digest, got, digests)
	}
}

// carried is a descriptor as an archive's index has it.
func carried(desc, subject ocispec.Descriptor) ocispec.Descriptor {
	desc.Annotations = map[string]string{images.AnnotationManifestSubject: subject.Digest.String()}
	return desc
}

func (s *shelf) restore(want int, subject ocispec.Descriptor, descs ...ocispec.Descriptor) {
	s.t.Helper()
	n, err := Restore(s.ctx, s.store, stored.NewLabeler(s.store), []digest.Digest{subject.Digest}, descs)
	if err != nil || n != want {
		s.t.Errorf("restored %d, want %d: %v", n, want, err)
	}
}

// Referrers of referrers are restored in whatever order the index names them, and
// an index that is a referrer keeps its manifests and theirs.
func TestRestore(t *testing.T) {
	s := newShelf(t)
	image := s.artifact("image", nil)
	sbom := s.artifact("sbom", &image)
	signature := s.artifact("signature", &sbom)
	inner := s.artifact("inner", nil)
	nested := s.index(nil, inner)
	bundle := s.index(&image, nested)
	s.restore(3, image, carried(signature, sbom), carried(bundle, image), carried(sbom, image))
	s.wantTied(image, sbom, bundle)
	s.wantTied(sbom, signature)
	for parent, child := range map[digest.Digest]digest.Digest{
		bundle.Digest: nested.Digest, nested.Digest: inner.Digest, inner.Digest: ocispec.DescriptorEmptyJSON.Digest,
	} {
		for key, value := range labels.Children(child) {
			if got := s.labels(ocispec.Descriptor{Digest: parent})[key]; got != value {
				t.Errorf("%s of %s is %q, want %s", key, parent, got, value)
			}
		}
	}
}

// untyped stores a manifest that looks like an image, of which only the layer's type tells
// what it is.
func (s *shelf) untyped(layer string) ocispec.Descriptor {
	return s.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: ocispec.DescriptorEmptyJSON.Digest, Size: 2},
		Layers:    []ocispec.Descriptor{{MediaType: layer, Digest: ocispec.DescriptorEmptyJSON.Digest, Size: 2}},
	})
}

// What names no subject itself has the archive's word for it, and for its type.
func TestRestoreWithoutSubjectField(t *testing.T) {
	s := newShelf(t)
	image := s.artifact("image", nil)
	cosign, buildKit := s.untyped("application/vnd.dev.cosign.simplesigning.v1+json"), s.untyped("application/vnd.in-toto+json")
	buildKit.ArtifactType = artifact.TypeBuildKitAttestation
	// What is an image, and said to be something else.
	signed, attested := s.untyped(ocispec.MediaTypeImageLayerGzip), s.untyped(ocispec.MediaTypeImageLayer)
	signed.ArtifactType, attested.ArtifactType = artifact.TypeCosignSignature, artifact.TypeBuildKitAttestation
	own := s.artifact("own", nil)
	own.ArtifactType = "text/another"
	long := s.artifact("long", nil)
	long.ArtifactType = strings.Repeat("x", 300)
	s.restore(3, image, carried(cosign, image), carried(buildKit, image), carried(own, image), carried(long, image), carried(signed, image), carried(attested, image))
	s.wantTied(image, cosign, buildKit, own)
	for desc, want := range map[*ocispec.Descriptor]string{
		&cosign: artifact.TypeCosignSignature, &buildKit: artifact.TypeBuildKitAttestation, &own: "text/own", // its manifest's, not the archive's
	} {
		if got := s.labels(*desc)[labels.ArtifactTypeKey]; got != want {
			t.Errorf("the label says %q, want %q", got, want)
		}
	}
}

func TestRestoreLeavesOut(t *testing.T) {
	s := newShelf(t)
	image, other := s.artifact("image", nil), s.artifact("other", nil)
	missing := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("missing"), Size: 7}
	deep := s.index(nil, s.index(nil, s.index(nil, s.index(nil, other))))
	good := s.artifact("good", &image)
	s.restore(1, image,
		carried(s.artifact("a", &other), image),
		carried(s.artifact("b", &other), other), // a subject that does not come in
		carried(missing, image),
		carried(s.index(&image, missing), image),
		carried(deep, image),
		carried(s.put("text/plain", []byte("no manifest")), image),
		carried(ocispec.Descriptor{Digest: "sha256:../../../etc/passwd", Size: 3}, image),
		carried(ocispec.Descriptor{Digest: good.Digest, Size: -1}, image),
		carried(good, image),
	)
	s.wantTied(image, good)
	s.wantTied(other)
}

// A circle ends, and one subject gets no more than the limit.
func TestRestoreIsBounded(t *testing.T) {
	s := newShelf(t)
	a, b := s.artifact("a", nil), s.artifact("b", nil)
	s.restore(2, a, carried(b, a), carried(a, b), carried(b, a))
	s.wantTied(a, b)
	s.wantTied(b, a)

	image := s.artifact("image", nil)
	first, last := s.artifact("first", &image), s.artifact("last", &image)
	many := []ocispec.Descriptor{carried(first, image)}
	for i := range maxReferrers - 1 {
		many = append(many, carried(ocispec.Descriptor{Digest: digest.FromString(fmt.Sprint(i)), Size: 1}, image))
	}
	s.restore(1, image, append(many, carried(last, image))...)
	s.wantTied(image, first)
}
