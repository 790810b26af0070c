package gather

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// Each test is a row of what a registry may do to a pull.

var sboms = policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}}

func TestDecoysDoNotPushTheSignaturePastTheCap(t *testing.T) {
	w := newWorld(t)
	var listed []ocispec.Descriptor
	for i := range 50 {
		listed = append(listed, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.decoy",
			Digest: digest.FromString(fmt.Sprint(i)), Size: 100})
	}
	sig := w.artifact(signature, &w.subject, w.serve("signed"))
	w.list(w.subject, append(listed, sig)...)
	few := func(c *Config) { c.Limits.MaxReferrers = 2 }

	out, sel := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Required: []string{artifact.SetSignatures}, Depth: 1}, few)
	w.wantTied(w.subject, sig)
	w.wantStatus(out, labels.Present)
	if err := out.Enforce("image", sel); err != nil {
		t.Error(err)
	}
	if n := w.asked("/manifests/"); n != 1 {
		t.Errorf("%d manifests were fetched, 1 is wanted", n)
	}
}

func TestDecoysOfTheSameTypeAreSaidToTruncate(t *testing.T) {
	w := newWorld(t)
	var listed []ocispec.Descriptor
	for i := range 3 {
		decoy := w.artifact(signature, &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("other"), Size: 5}, w.serve(fmt.Sprint("decoy", i)))
		listed = append(listed, decoy)
	}
	sig := w.artifact(signature, &w.subject, w.serve("signed"))
	w.list(w.subject, append(listed, sig)...)
	out, sel := w.gather(policy.Rule{Required: []string{artifact.SetSignatures}}, func(c *Config) { c.Limits.MaxReferrers = 3 })
	w.wantStatus(out, labels.Truncated)
	w.wantTied(w.subject)
	err := out.Enforce("image", sel)
	if err == nil || !strings.Contains(err.Error(), "truncated") || !strings.Contains(err.Error(), "max_referrers") {
		t.Errorf("what is required does not fail closed, or does not say why: %v", err)
	}
}

func TestDuplicatesAreTakenOnce(t *testing.T) {
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

func TestCyclesEnd(t *testing.T) {
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
func TestSubjectsAreAskedAboutOnce(t *testing.T) {
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

func TestReferrerOfAnotherSubjectIsDropped(t *testing.T) {
	w := newWorld(t)
	other := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("other"), Size: 5}
	for name, subject := range map[string]*ocispec.Descriptor{"another": &other, "none": nil} {
		blob := w.serve("sbom of " + name)
		sbom := w.artifact(spdx, subject, blob)
		w.list(w.subject, sbom)
		out, sel := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Required: []string{artifact.SetSBOMs}})
		w.wantTied(w.subject)
		w.wantStatus(out, labels.Present)
		if n := w.asked(blob.Digest.String()); n != 0 {
			t.Errorf("%s: its blob was fetched", name)
		}
		err := out.Enforce("image", sel)
		if err == nil || !strings.Contains(err.Error(), "subject") {
			t.Errorf("%s: it satisfies what is required, or the error does not say why: %v", name, err)
		}
	}
}

func TestManifestDecidesTheType(t *testing.T) {
	w := newWorld(t)
	liar := w.artifact("application/vnd.example.other", &w.subject, w.serve("other"))
	liar.ArtifactType = spdx // listed as wanted, but is not
	empty := w.artifact(spdx, &w.subject, w.serve("sbom"))
	empty.ArtifactType = "application/vnd.oci.empty.v1+json" // wanted, but listed as nothing
	w.list(w.subject, liar, empty)
	w.gather(sboms)
	w.wantTied(w.subject, empty)
}

func TestTypeMissingInTheListIsReadFromTheManifest(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	sbom.ArtifactType = ""
	w.list(w.subject, sbom)
	w.gather(sboms)
	w.wantTied(w.subject, sbom)
}

func TestReferrerThatIsAnIndexIsTaken(t *testing.T) {
	w := newWorld(t)
	inner := w.artifact(spdx, nil, w.serve("sbom for amd64"))
	index := w.manifest(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		ArtifactType: spdx, Manifests: []ocispec.Descriptor{inner}, Subject: &w.subject,
	}, ocispec.MediaTypeImageIndex, spdx)
	w.list(w.subject, index)
	out, _ := w.gather(sboms)
	w.wantTied(w.subject, index)
	w.wantStatus(out, labels.Present)
	if _, err := w.store.Info(w.ctx, digest.FromString("sbom for amd64")); err != nil {
		t.Error(err)
	}
}

func TestSizesThatCannotBeAreRefused(t *testing.T) {
	for _, size := range []int64{-1, 0, 1 << 62} {
		w := newWorld(t)
		blob := w.serve("sbom")
		blob.Size = size
		sbom := w.artifact(spdx, &w.subject, blob)
		w.list(w.subject, sbom)
		out, _ := w.gather(sboms)
		w.wantTied(w.subject)
		if out.Subjects[0].Status == labels.Present {
			t.Errorf("size %d: status is present, though a wanted referrer is missing", size)
		}
		if n := w.asked("/blobs/" + blob.Digest.String()); n != 0 {
			t.Errorf("size %d: %d requests for the blob", size, n)
		}
	}
}

func TestHonestBytesAfterWrongOnesAreTaken(t *testing.T) {
	w := newWorld(t)
	blob := w.serve("the honest sbom")
	path := base + "blobs/" + blob.Digest.String()
	honest := hostile.Content("application/octet-stream", []byte("the honest sbom"))
	sbom := w.artifact(spdx, &w.subject, blob)
	w.list(w.subject, sbom)

	w.server.On(path, hostile.Content("application/octet-stream", []byte("a forged sbom!!")))
	out, _ := w.gather(sboms)
	w.wantTied(w.subject)
	w.wantStatus(out, labels.Unknown)

	w.server.On(path, honest)
	out, _ = w.gather(sboms)
	w.wantTied(w.subject, sbom)
	w.wantStatus(out, labels.Present)
}

// Wrong bytes of one host, a mirror say, are no reason to go without: the next has them.
func TestWrongBytesOfTheFirstHostAreFetchedFromTheNext(t *testing.T) {
	w := newWorld(t)
	mirror := hostile.New(t)
	blob := w.serve("the honest sbom")
	forged := hostile.Content("application/octet-stream", []byte("a forged sbom!!"))
	mirror.On(base+"blobs/"+blob.Digest.String(), forged)
	sbom := w.artifact(spdx, &w.subject, blob)
	w.list(w.subject, sbom)
	out, _ := w.gather(sboms, func(c *Config) {
		spec, err := reference.Parse(c.Name)
		if err != nil {
			t.Fatal(err)
		}
		can := docker.HostCapabilityPull | docker.HostCapabilityResolve
		c.Repository = registry.New(spec, []docker.RegistryHost{mirror.RegistryHost(can), w.server.RegistryHost(can)}, nil,
			registry.Limits{Attempts: 1})
	})
	w.wantTied(w.subject, sbom)
	w.wantStatus(out, labels.Present)
	if n := len(mirror.Paths()); n == 0 || !slices.Contains(mirror.Paths(), base+"blobs/"+blob.Digest.String()) {
		t.Errorf("the mirror was asked for %q", mirror.Paths())
	}
}

// Digests within a referrer's manifest that are none, and would lead a URL elsewhere,
// reach no URL and no store.
func TestDigestsThatAreNoneReachNoURL(t *testing.T) {
	for name, dgst := range map[string]digest.Digest{
		"a path":      "../../../_catalog",
		"a query":     "sha256:..?x",
		"empty":       "",
		"short":       "sha256:abc",
		"no hex":      digest.Digest("sha256:" + strings.Repeat("z", 64)),
		"upper case":  digest.Digest("sha256:" + strings.Repeat("A", 64)),
		"another":     digest.Digest("md5:" + strings.Repeat("a", 32)),
		"no encoding": "sha256:",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sbom := w.artifact(spdx, &w.subject, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: dgst, Size: 4})
			w.list(w.subject, sbom)
			out, _ := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1})
			w.wantTied(w.subject)
			w.wantStatus(out, labels.Unknown)
			if n := len(w.server.Paths()); n != 2 { // the listing and the manifest
				t.Errorf("asked for %q", w.server.Paths())
			}
		})
	}
}

func TestInlineDataThatLiesIsNotStored(t *testing.T) {
	w := newWorld(t)
	blob := w.serve("the honest sbom")
	blob.Data = []byte("a forged sbom!!")
	sbom := w.artifact(spdx, &w.subject, blob)
	sbom.Data = bytes.Repeat([]byte("x"), int(sbom.Size))
	w.list(w.subject, sbom)
	w.gather(sboms)
	w.wantTied(w.subject, sbom)
}

func TestURLsOfReferrersAreNotDialled(t *testing.T) {
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

func TestReferrerThatHangsIsGivenUp(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	hung := w.serve("never comes")
	w.server.On(base+"blobs/"+hung.Digest.String(), hostile.Answer{Hang: true})
	slow := w.artifact(spdx, &w.subject, hung)
	w.list(w.subject, slow, sbom)
	out, _ := w.gatherWith(sboms, 1, func(c *Config) { c.Limits.Timeout = 100 * time.Millisecond })
	w.wantTied(w.subject, sbom) // what came is kept
	w.wantStatus(out, labels.Unknown)
	if why := out.Subjects[0].Why; !strings.Contains(why, "key timeout") {
		t.Errorf("it is not said which limit ended it: %s", why)
	}
}

// An image within an artifact: it is stored, and no one unpacks it, since it never
// passes through the image's own dispatch; its blobs are kept by labels of ours.
func TestReferrerThatLooksLikeAnImageIsNotUnpacked(t *testing.T) {
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
