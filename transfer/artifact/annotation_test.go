package artifact

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a stranger's document says must not name an image, tie content or root it,
// wherever a descriptor goes.
func TestIsDescriptive(t *testing.T) {
	t.Parallel()
	told := []string{"dev.sigstore.bundle.predicateType", "dev.sigstore.bundle.content", "in-toto.io/predicate-type", ocispec.AnnotationCreated}
	for _, annotation := range told {
		if !IsDescriptive(annotation) {
			t.Errorf("%s is left out", annotation)
		}
		for _, other := range []string{strings.ToUpper(annotation), annotation + " ", annotation + ".x", annotation[1:]} {
			if IsDescriptive(other) {
				t.Errorf("%q stays", other)
			}
		}
	}
	for kind, annotations := range map[string][]string{
		"names": {
			images.AnnotationImageName, "io.containerd.image.name", ocispec.AnnotationRefName, "org.opencontainers.image.base.name", "org.opencontainers.image.base.digest",
			"com.docker.official-images.bashbrew.arch", "vnd.docker.reference.type", "vnd.docker.reference.digest", "",
		},
		"ties": {
			images.AnnotationManifestSubject, "io.containerd.manifest.subject", "org.opencontainers.image.referrer.subject",
			"containerd.io/gc.ref.content.0", "containerd.io/gc.ref.content.l.0", "containerd.io/gc.ref.content.config", "containerd.io/gc.ref.content.referrer.sha256.aaaaaaaaaaaa",
			"containerd.io/gc.ref.snapshot.overlayfs", "containerd.io/gc.bref.content.x", "containerd.io/gc.bref.image.x", "containerd.io/distribution.source.docker.io",
			"containerd.io/uncompressed", "transfer-referrers/status", "transfer-referrers/checked", "transfer-referrers/source", "transfer-referrers/artifact-type",
		},
		"roots": {"containerd.io/gc.root", "containerd.io/gc.expire", "containerd.io/gc.flat", "containerd.io/namespace.shareable", "containerd.io/snapshot.ref", "containerd.io/snapshot/"},
	} {
		for _, annotation := range annotations {
			if IsDescriptive(annotation) {
				t.Errorf("%q %s, and stays", annotation, kind)
			}
		}
	}
}
