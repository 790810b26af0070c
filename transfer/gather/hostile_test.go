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

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Each test is a row of what a registry may do to a pull.

var sboms = policy.Rule{ArtifactTypes: []string{policy.SetSBOMs}}

func TestRow15DecoysDoNotPushTheSignaturePastTheCap(t *testing.T) {
	w := newWorld(t)
	var listed []ocispec.Descriptor
	for i := range 50 {
		listed = append(listed, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.decoy",
			Digest: digest.FromString(fmt.Sprint(i)), Size: 100})
	}
	sig := w.artifact(signature, &w.subject, w.serve("signed"))
	w.list(w.subject, append(listed, sig)...)
	few := func(c *Config) { c.Limits.MaxReferrers = 2 }

	out, sel := w.gather(policy.Rule{ArtifactTypes: []string{policy.SetSignatures}, Required: []string{policy.SetSignatures}, Depth: 1}, few)
	w.wantTied(w.subject, sig)
	w.wantStatus(out, discovery.Present)
	if err := out.Enforce("image", sel); err != nil {
		t.Error(err)
	}
	if n := w.asked("/manifests/"); n != 1 {
		t.Errorf("%d manifests were fetched, 1 is wanted", n)
	}
}

func TestRow15DecoysOfTheSameTypeAreSaidToTruncate(t *testing.T) {
	w := newWorld(t)
	var listed []ocispec.Descriptor
	for i := range 3 {
		decoy := w.artifact(signature, &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("other"), Size: 5}, w.serve(fmt.Sprint("decoy", i)))
		listed = append(listed, decoy)
	}
	sig := w.artifact(signature, &w.subject, w.serve("signed"))
	w.list(w.subject, append(listed, sig)...)
	out, sel := w.gather(policy.Rule{Required: []string{policy.SetSignatures}}, func(c *Config) { c.Limits.MaxReferrers = 3 })
	w.wantStatus(out, discovery.Truncated)
	w.wantTied(w.subject)
	err := out.Enforce("image", sel)
	if err == nil || !strings.Contains(err.Error(), "truncated") || !strings.Contains(err.Error(), "max_referrers") {
		t.Errorf("what is required does not fail closed, or does not say why: %v", err)
	}
}

func TestRow16DuplicatesAreTakenOnce(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	w.list(w.subject, sbom, sbom, sbom)
	out, _ := w.gather(sboms)
	w.wantTied(w.subject, sbom)
	if n := len(out.Subjects[0].Taken); n != 1 {
		t.Errorf("taken %d times", n)
	}
	if n := w.asked(sbom.Digest.String()); n != 2 { // its manifest, and its own listing
		t.Errorf("%d requests for it, want 2", n)
	}
}

func TestRow17Cycles(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	sig := w.artifact(signature, &sbom, w.serve("signed"))
	w.list(w.subject, sbom, w.subject) // A refers to A
	w.list(sbom, sig)
	w.list(sig, sbom, sig, w.subject) // and the chain back to its start
	out, _ := w.gather(policy.Rule{ArtifactTypes: []string{policy.SetAll}, Depth: policy.MaxDepth})
	w.wantTied(w.subject, sbom)
	w.wantTied(sbom, sig)
	w.wantTied(sig)
	if n := w.asked("/referrers/"); n != 3 || len(out.Subjects) != 3 {
		t.Errorf("%d listings of %d subjects, want 3", n, len(out.Subjects))
	}
}

// However often an index names a manifest, and whatever refers to it in a circle, it is
// asked about once.
func TestRow17SubjectsAreAskedAboutOnce(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	w.list(w.subject, sbom)
	w.list(sbom, w.subject, sbom) // a listing may say what no manifest can
	g := New(w.ctx, w.config(policy.Rule{ArtifactTypes: []string{policy.SetAll}, Depth: 8}))
	defer g.Close()
	for range 3 {
		g.Image(w.subject)
	}
	g.Image(sbom) // and as a part of the image
	g.Wait(w.ctx)
	for _, subject := range []ocispec.Descriptor{w.subject, sbom} {
		if n := w.asked("/referrers/" + subject.Digest.String()); n != 1 {
			t.Errorf("%s was asked about %d times, want once", subject.Digest, n)
		}
	}
}

func TestRow18SubjectOfAnother(t *testing.T) {
	w := newWorld(t)
	other := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("other"), Size: 5}
	for name, subject := range map[string]*ocispec.Descriptor{"another": &other, "none": nil} {
		blob := w.serve("sbom of " + name)
		sbom := w.artifact(spdx, subject, blob)
		w.list(w.subject, sbom)
		out, sel := w.gather(policy.Rule{ArtifactTypes: []string{policy.SetSBOMs}, Required: []string{policy.SetSBOMs}})
		w.wantTied(w.subject)
		w.wantStatus(out, discovery.Present)
		if n := w.asked(blob.Digest.String()); n != 0 {
			t.Errorf("%s: its blob was fetched", name)
		}
		err := out.Enforce("image", sel)
		if err == nil || !strings.Contains(err.Error(), "subject") {
			t.Errorf("%s: it satisfies what is required, or the error does not say why: %v", name, err)
		}
	}
}

func TestRow20TheManifestDecidesTheType(t *testing.T) {
	w := newWorld(t)
	liar := w.artifact("application/vnd.example.other", &w.subject, w.serve("other"))
	liar.ArtifactType = spdx // listed as wanted, but is not
	empty := w.artifact(spdx, &w.subject, w.serve("sbom"))
	empty.ArtifactType = "application/vnd.oci.empty.v1+json" // wanted, but listed as nothing
	w.list(w.subject, liar, empty)
	w.gather(sboms)
	w.wantTied(w.subject, empty)
}

func TestRow21TypeMissingInTheList(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	sbom.ArtifactType = ""
	w.list(w.subject, sbom)
	w.gather(sboms)
	w.wantTied(w.subject, sbom)
}

func TestRow23ReferrerThatIsAnIndex(t *testing.T) {
	w := newWorld(t)
	inner := w.artifact(spdx, nil, w.serve("sbom for amd64"))
	index := w.manifest(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		ArtifactType: spdx, Manifests: []ocispec.Descriptor{inner}, Subject: &w.subject,
	}, ocispec.MediaTypeImageIndex, spdx)
	w.list(w.subject, index)
	out, _ := w.gather(sboms)
	w.wantTied(w.subject, index)
	w.wantStatus(out, discovery.Present)
	if _, err := w.store.Info(w.ctx, digest.FromString("sbom for amd64")); err != nil {
		t.Error(err)
	}
}

func TestRow27SizesThatCannotBe(t *testing.T) {
	for _, size := range []int64{-1, 0, 1 << 62} {
		w := newWorld(t)
		blob := w.serve("sbom")
		blob.Size = size
		sbom := w.artifact(spdx, &w.subject, blob)
		w.list(w.subject, sbom)
		out, _ := w.gather(sboms)
		w.wantTied(w.subject)
		if out.Subjects[0].Status == discovery.Present {
			t.Errorf("size %d: status is present, though a wanted referrer is missing", size)
		}
		if n := w.asked("/blobs/" + blob.Digest.String()); n != 0 {
			t.Errorf("size %d: %d requests for the blob", size, n)
		}
	}
}

func TestRow28WrongBytesThenHonestOnes(t *testing.T) {
	w := newWorld(t)
	blob := w.serve("the honest sbom")
	path := base + "blobs/" + blob.Digest.String()
	honest := hostile.Content("application/octet-stream", []byte("the honest sbom"))
	sbom := w.artifact(spdx, &w.subject, blob)
	w.list(w.subject, sbom)

	w.server.On(path, hostile.Content("application/octet-stream", []byte("a forged sbom!!")))
	out, _ := w.gather(sboms)
	w.wantTied(w.subject)
	w.wantStatus(out, discovery.Unknown)

	w.server.On(path, honest)
	out, _ = w.gather(sboms)
	w.wantTied(w.subject, sbom)
	w.wantStatus(out, discovery.Present)
}

func TestRow30InlineDataThatLies(t *testing.T) {
	w := newWorld(t)
	blob := w.serve("the honest sbom")
	blob.Data = []byte("a forged sbom!!")
	sbom := w.artifact(spdx, &w.subject, blob)
	sbom.Data = bytes.Repeat([]byte("x"), int(sbom.Size))
	w.list(w.subject, sbom)
	w.gather(sboms)
	w.wantTied(w.subject, sbom)
}

func TestRow32URLsAreNotDialled(t *testing.T) {
	elsewhere := hostile.New(t)
	w := newWorld(t)
	blob := w.serve("sbom")
	blob.URLs = []string{elsewhere.URL() + "/blob"}
	sbom := w.artifact(spdx, &w.subject, blob)
	sbom.URLs = []string{elsewhere.URL() + "/manifest"}
	w.list(w.subject, sbom)
	w.gather(sboms)
	w.wantTied(w.subject, sbom)
	if n := len(elsewhere.Requests()); n != 0 {
		t.Errorf("%d requests to the URLs of descriptors", n)
	}
}

func TestRow40ReferrerThatHangsIsGivenUp(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	hung := w.serve("never comes")
	w.server.On(base+"blobs/"+hung.Digest.String(), hostile.Answer{Hang: true})
	slow := w.artifact(spdx, &w.subject, hung)
	w.list(w.subject, slow, sbom)
	out, _ := w.gatherWith(sboms, 1, func(c *Config) { c.Limits.Timeout = 100 * time.Millisecond })
	w.wantTied(w.subject, sbom) // what came is kept
	w.wantStatus(out, discovery.Unknown)
	if why := out.Subjects[0].Why; !strings.Contains(why, "key timeout") {
		t.Errorf("it is not said which limit ended it: %s", why)
	}
}

// An image within an artifact: it is stored, and no one unpacks it, since it never
// passes through the image's own dispatch; its blobs are kept by labels of ours.
func TestRow46ReferrerThatLooksLikeAnImage(t *testing.T) {
	w := newWorld(t)
	config := w.serve(`{"architecture":"amd64","os":"linux"}`)
	config.MediaType = ocispec.MediaTypeImageConfig
	layer := w.serve("a layer")
	layer.MediaType = ocispec.MediaTypeImageLayerGzip
	image := w.manifest(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: spdx, Config: config, Layers: []ocispec.Descriptor{layer}, Subject: &w.subject,
	}, ocispec.MediaTypeImageManifest, spdx)
	w.list(w.subject, image)
	w.gather(sboms)
	w.wantTied(w.subject, image)
	info, err := w.store.Info(w.ctx, image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for key := range info.Labels {
		if strings.HasPrefix(key, "containerd.io/gc.ref.content.l.") || strings.HasPrefix(key, "containerd.io/gc.ref.snapshot") {
			t.Errorf("it is labelled as an image is: %s", key)
		}
	}
}

func TestRow51TooLargeIsRefusedBeforeItsFirstByte(t *testing.T) {
	w := newWorld(t)
	huge := w.serve("x")
	huge.Size = 10 << 30
	w.list(w.subject, w.artifact(spdx, &w.subject, huge))
	out, _ := w.gather(sboms)
	w.wantTied(w.subject)
	w.wantStatus(out, discovery.Truncated)
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
	w.wantStatus(out, discovery.Truncated)
	if n := len(w.tied(w.subject)); n != 1 {
		t.Errorf("%d referrers are tied, 1 has room", n)
	}
	if why := out.Subjects[0].Why; !strings.Contains(why, "max_total_size") {
		t.Errorf("it is not said which limit refused it: %s", why)
	}
}

func TestManyLayers(t *testing.T) {
	w := newWorld(t)
	var layers []ocispec.Descriptor
	for i := range MaxChildren + 1 {
		layers = append(layers, w.serve(fmt.Sprint("layer ", i)))
	}
	w.list(w.subject, w.artifact(spdx, &w.subject, layers...))
	out, _ := w.gather(sboms)
	w.wantStatus(out, discovery.Truncated)
	w.wantTied(w.subject)
}

// Annotations of a stranger reach neither labels nor the names of ingests.
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
	w.wantStatus(out, discovery.Truncated)
	if n := len(w.tied(w.subject)); n != 2 {
		t.Errorf("%d manifests of 40 KiB are tied within 100 KiB", n)
	}
}

// What a stranger writes reaches logs and errors, cut to what they bear.
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
	out, sel := w.gather(policy.Rule{ArtifactTypes: []string{policy.SetAll}, Required: []string{policy.SetSignatures}})
	err := out.Enforce("image", sel)
	if err == nil || len(err.Error()) > 8<<10 {
		t.Errorf("an error of %d bytes", len(fmt.Sprint(err)))
	}
	for _, l := range out.Subjects[0].Left {
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
	w.wantStatus(out, discovery.Unknown)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 6<<20 {
		t.Errorf("%d KiB were allocated for a layer that is no manifest", grown>>10)
	}
}
