package gather

import (
	"fmt"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// A pull whose client leaves takes nothing from another pull of the same image,
// which waits for the ingests that the first has locked.
func TestCancelledPullLeavesTheOtherAlone(t *testing.T) {
	for range 5 {
		w := newWorld(t)
		var blobs []ocispec.Descriptor
		for i := range 12 {
			blob := w.serve(fmt.Sprint("blob ", i))
			w.server.On(base+"blobs/"+blob.Digest.String(), hostile.Answer{Body: []byte(fmt.Sprint("blob ", i)), Drip: 5 * time.Millisecond})
			blobs = append(blobs, blob)
		}
		sbom := w.artifact(spdx, &w.subject, blobs...)
		w.list(w.subject, sbom)

		config := w.config(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1})
		first, second := New(storetest.Leased(w.ctx, t, w.db), config), New(w.ctx, config)
		first.Image(w.subject)
		for w.asked("/blobs/") == 0 {
			if w.ctx.Err() != nil {
				t.Fatal("no blob was asked for")
			}
			time.Sleep(time.Millisecond)
		}
		second.Image(w.subject)
		time.Sleep(10 * time.Millisecond) // the second comes to wait for ingests; it need not have
		first.Close()
		out := second.Wait(w.ctx)
		second.Close()
		if s := out.Subjects[0]; s.Status != labels.Present || len(s.Taken) != 1 {
			t.Fatalf("the other pull lost the referrer: %s", s.Why)
		}
		w.wantNoIngest()
	}
}

// Many pulls at once of one referrer fetch it once, and none fails.
func TestPullsAtOnceFetchOnce(t *testing.T) {
	w := newWorld(t)
	w.list(w.subject, w.artifact(spdx, &w.subject, w.serve("shared")))
	config := w.config(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1})
	outcomes := make(chan *outcome.Outcome)
	const pulls = 20
	for range pulls {
		go func() {
			g := New(w.ctx, config)
			defer g.Close()
			g.Image(w.subject)
			outcomes <- g.Wait(w.ctx)
		}()
	}
	for range pulls {
		if s := (<-outcomes).Subjects[0]; len(s.Taken) != 1 {
			t.Errorf("a pull lost the referrer: %s", s.Why)
		}
	}
	if n := w.asked("/blobs/"); n != 1 {
		t.Errorf("%d requests for the blob, want 1", n)
	}
	if n := w.asked("/manifests/"); n < 1 || n > pulls {
		t.Errorf("%d requests for the manifest, want one a pull at most", n)
	}
}

// Tags of cosign's can point anywhere. Where one names the subject, or what is no
// signature, nothing is taken, and no label leads back.
func TestCosignTagsInCircles(t *testing.T) {
	w := newWorld(t)
	manifest, err := w.store.ReaderAt(w.ctx, w.subject)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, w.subject.Size)
	if _, err := manifest.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := manifest.Close(); err != nil {
		t.Fatal(err)
	}
	tag := base + "manifests/sha256-" + w.subject.Digest.Encoded()
	w.server.On(tag+".sig", hostile.Content(ocispec.MediaTypeImageManifest, data))
	w.server.On(tag+".att", hostile.Content(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"mediaType":"`+ocispec.MediaTypeImageConfig+`"},"layers":[{"mediaType":"`+ocispec.MediaTypeImageLayer+`"}]}`)))
	w.list(w.subject)
	out, sel := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetAttestations}, Required: []string{artifact.SetSignatures}}, func(c *Config) { c.Cosign = CosignAlways })
	w.wantTied(w.subject)
	if err := out.Enforce("image", sel); err == nil {
		t.Error("the image is its own signature")
	}
	if info, err := w.store.Info(w.ctx, w.subject.Digest); err != nil || info.Labels["transfer-referrers/artifact-type"] != "" {
		t.Errorf("the image's manifest is labelled as an artifact: %v, %v", info.Labels, err)
	}
}

// A manifest that lies about the size of shared content fails alone.
func TestDecoyDoesNotSpoilSharedContent(t *testing.T) {
	w := newWorld(t)
	shared := w.serve("shared by both")
	lie := shared
	lie.Size = 3
	decoy := w.artifact(spdx, &w.subject, lie)
	honest := w.artifact(spdx, &w.subject, shared)
	w.list(w.subject, decoy, honest)
	out, _ := w.gather(sboms, func(c *Config) { c.Limits.MaxConcurrentDownloads = 1 })
	w.wantTied(w.subject, honest)
	w.wantStatus(out, labels.Unknown)
}

// A wanted entry that a limit refused must not leave the subject "present".
func TestEntryOverTheLimitTruncates(t *testing.T) {
	w := newWorld(t)
	huge := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: spdx, Digest: w.serve("x").Digest, Size: registry.MaxListedSize + 1}
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	w.list(w.subject, huge, sbom)
	out, _ := w.gather(sboms)
	w.wantTied(w.subject, sbom)
	w.wantStatus(out, labels.Truncated)
}
