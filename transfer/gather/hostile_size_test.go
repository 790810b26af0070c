package gather

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// What is too large, too many or too long for a pull, and what must not reach the
// store at all.

func TestTooLargeIsRefusedBeforeItsFirstByte(t *testing.T) {
	w := newWorld(t)
	huge := w.serve("x")
	huge.Size = 10 << 30
	w.list(w.subject, w.artifact(spdx, &w.subject, huge))
	out, _ := w.gather(sboms)
	w.wantTied(w.subject)
	w.wantStatus(out, labels.Truncated)
	if n := w.asked("/blobs/" + huge.Digest.String()); n != 0 {
		t.Errorf("%d requests for it", n)
	}
	if why := out.Subjects[0].Why; !strings.Contains(why, "max_blob_size") {
		t.Errorf("it is not said which limit refused it: %s", why)
	}
}

func TestAllBlobsTogetherAreLimited(t *testing.T) {
	w := newWorld(t)
	a, b := w.artifact(spdx, &w.subject, w.serve(strings.Repeat("a", 600))), w.artifact(spdx, &w.subject, w.serve(strings.Repeat("b", 600)))
	w.list(w.subject, a, b)
	out, _ := w.gather(sboms, func(c *Config) { c.Limits.MaxTotalSize = 2200 })
	w.wantStatus(out, labels.Truncated)
	if n := len(w.tied(w.subject)); n != 1 {
		t.Errorf("%d referrers are tied, 1 has room", n)
	}
	if why := out.Subjects[0].Why; !strings.Contains(why, "max_total_size") {
		t.Errorf("it is not said which limit refused it: %s", why)
	}
}

// cosign adds a layer to one manifest for each signature: they are small, and all of them
// are taken.
func TestManyLayersAreTaken(t *testing.T) {
	w := newWorld(t)
	var layers []ocispec.Descriptor
	for i := range 200 {
		layers = append(layers, w.serve(fmt.Sprint("layer ", i)))
	}
	many := w.artifact(spdx, &w.subject, layers...)
	w.list(w.subject, many)
	out, _ := w.gather(sboms, func(c *Config) { c.Limits.Timeout = 10 * time.Minute })
	w.wantStatus(out, labels.Present)
	w.wantTied(w.subject, many)
	for _, l := range layers {
		if _, err := w.store.Info(w.ctx, l.Digest); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTooManyLayersAreRefused(t *testing.T) {
	w := newWorld(t)
	layers := make([]ocispec.Descriptor, artifact.MaxDescriptors+1)
	for i := range layers {
		layers[i] = w.serve("layer")
	}
	w.list(w.subject, w.artifact(spdx, &w.subject, layers...))
	out, _ := w.gather(sboms)
	w.wantStatus(out, labels.Truncated)
	w.wantTied(w.subject)
	if why := out.Subjects[0].Why; !strings.Contains(why, "more than 1000 layers") {
		t.Errorf("it is not said which limit refused it: %s", why)
	}
}

// Annotations from the network reach neither labels nor the names of ingests.
func TestAnnotationsStayOutOfTheStore(t *testing.T) {
	w := newWorld(t)
	annotations := map[string]string{
		"containerd.io/gc.root": "now", "io.containerd.image.name": "evil", ocispec.AnnotationRefName: "../../evil",
		images.AnnotationManifestSubject: "sha256:0",
	}
	blob := w.serve("sbom")
	blob.Annotations = annotations
	sbom := w.manifest(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: spdx,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{blob}, Subject: &w.subject, Annotations: annotations,
	}, ocispec.MediaTypeImageManifest, spdx)
	sbom.Annotations = annotations
	w.list(w.subject, sbom)
	w.gather(sboms)
	w.wantTied(w.subject, sbom)
	for _, dgst := range []digest.Digest{w.subject.Digest, sbom.Digest, blob.Digest} {
		info, err := w.store.Info(w.ctx, dgst)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range info.Labels {
			if k == "containerd.io/gc.root" || strings.Contains(v, "evil") {
				t.Errorf("%s has the label %s=%s", dgst, k, v)
			}
		}
	}
	for _, e := range w.events {
		if strings.Contains(e.Name, "evil") {
			t.Errorf("progress names %s", e.Name)
		}
	}
}

// Referrers of referrers multiply, and a manifest alone may hold four mebibytes:
// what counts against the pull's limit is manifests as well as blobs.
func TestManifestsCountAgainstTheLimit(t *testing.T) {
	w := newWorld(t)
	padding := map[string]string{"padding": strings.Repeat("x", 40<<10)}
	var listed []ocispec.Descriptor
	for i := range 5 {
		listed = append(listed, w.manifest(ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: spdx,
			Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{w.serve(fmt.Sprint("sbom", i))}, Subject: &w.subject, Annotations: padding,
		}, ocispec.MediaTypeImageManifest, spdx))
	}
	w.list(w.subject, listed...)
	out, _ := w.gather(sboms, func(c *Config) { c.Limits.MaxTotalSize = 100 << 10 })
	w.wantStatus(out, labels.Truncated)
	if n := len(w.tied(w.subject)); n != 2 {
		t.Errorf("%d manifests of 40 KiB are tied within 100 KiB", n)
	}
}

// Text from the network reaches logs and errors, cut to what they bear.
func TestMessagesStayShort(t *testing.T) {
	w := newWorld(t)
	long := "application/" + strings.Repeat("x", 1<<20)
	entry := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: long, Digest: digest.FromString("a"), Size: 5}
	bad := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: signature, Digest: digest.Digest("sha256:" + long), Size: 5}
	lies := w.manifest(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: long,
		Config: ocispec.DescriptorEmptyJSON, Subject: &ocispec.Descriptor{Digest: digest.Digest(long)},
	}, ocispec.MediaTypeImageManifest, signature)
	w.list(w.subject, entry, bad, lies)
	out, sel := w.gather(policy.Rule{ArtifactTypes: []string{policy.SetAll}, Required: []string{artifact.SetSignatures}})
	err := out.Enforce("image", sel)
	if err == nil || len(err.Error()) > 8<<10 {
		t.Errorf("an error of %d bytes", len(fmt.Sprint(err)))
	}
	for _, l := range out.Subjects[0].Skipped {
		if n := len(l.String()) + len(l.ArtifactType); n > 2<<10 {
			t.Errorf("a reason of %d bytes", n)
		}
	}
}

// A listing may call a layer that is stored a manifest: it must not be read whole.
func TestLayerThatIsCalledAManifest(t *testing.T) {
	w := newWorld(t)
	layer := w.put(bytes.Repeat([]byte("x"), 8<<20))
	layer.ArtifactType, layer.Size = spdx, 500
	w.list(w.subject, layer)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	out, _ := w.gather(sboms)
	runtime.ReadMemStats(&after)
	w.wantTied(w.subject)
	w.wantStatus(out, labels.Unknown)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 6<<20 {
		t.Errorf("%d KiB were allocated for a layer that is no manifest", grown>>10)
	}
}
