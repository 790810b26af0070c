package gather

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	clabels "github.com/containerd/containerd/v2/pkg/labels"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Harbor and Google's registry are known to list another size than the manifest's. The
// digest vouches for it, and it is asked for once.
func TestListingWithAWrongSize(t *testing.T) {
	for _, wrong := range []int64{1200, -100, 5 << 20} {
		w := newWorld(t)
		sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
		listed := sbom
		listed.Size += wrong
		w.list(w.subject, listed)
		for range 2 { // and again, when it is stored
			out, _ := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1})
			w.wantTied(w.subject, sbom)
			w.wantStatus(out, labels.Present)
			if taken := out.Subjects[0].Taken; len(taken) != 1 || taken[0].Size != sbom.Size {
				t.Errorf("%+v are taken, want one of %d bytes", taken, sbom.Size)
			}
		}
		if n := w.asked(sbom.Digest.String()); n != 1 {
			t.Errorf("the manifest was asked for %d times, want once", n)
		}
	}
}

// A layer may be empty. That is believed of the digest of nothing alone.
func TestEmptyLayer(t *testing.T) {
	w := newWorld(t)
	nothing := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString(""), Size: 0}
	whole := w.artifact(spdx, &w.subject, nothing, w.serve("sbom"))
	lie := w.artifact(spdx, &w.subject, ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("something"), Size: 0})
	w.list(w.subject, whole, lie)
	out, _ := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1})
	w.wantTied(w.subject, whole)
	if left := out.Subjects[0].Skipped; len(left) != 1 || left[0].Digest != lie.Digest || strings.Contains(left[0].Reason, "max_blob_size") {
		t.Errorf("left: %v, want the one that lies, and no limit blamed", left)
	}
	if info, err := w.store.Info(w.ctx, nothing.Digest); err != nil || info.Size != 0 {
		t.Errorf("the empty layer is stored as %+v, %v", info, err)
	}
	if n := w.asked(nothing.Digest.String()); n != 0 {
		t.Errorf("it was asked for %d times", n)
	}
}

// A referrer that calls another's layer a manifest does not spoil it.
func TestLayerThatAnotherCallsAManifest(t *testing.T) {
	w := newWorld(t)
	layer := w.serve("signed")
	called := layer
	called.MediaType = ocispec.MediaTypeImageManifest
	honest := w.artifact(signature, &w.subject, layer)
	w.list(w.subject, w.artifact(signature, &w.subject, called), honest)
	out, sel := w.gather(policy.Rule{Required: []string{artifact.SetSignatures}, Depth: 1})
	if err := out.Enforce("image", sel); err != nil {
		t.Error(err)
	}
}

// What lies under cosign's tags counts from the moment it is held in memory.
func TestCosignsTagCountsAgainstTheLimit(t *testing.T) {
	w := newWorld(t)
	sig := w.cosignTag(".sig")
	w.list(w.subject)
	out, _ := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Depth: 1}, func(c *Config) {
		c.Cosign, c.Limits.MaxTotalSize = CosignAuto, sig.Size-1
	})
	w.wantStatus(out, labels.Truncated)
	if n := out.Refusals()[outcome.LimitTotalSize]; n != 1 {
		t.Errorf("the limit refused %d, want 1: %v", n, out.Subjects[0].Skipped)
	}
}

// Pulls of two repositories that bring the same content both leave their names on it.
func TestSourcesOfSharedContentAreJoined(t *testing.T) {
	w := newWorld(t)
	desc := w.put([]byte("shared"))
	var wg sync.WaitGroup
	const repositories = 20
	for i := range repositories {
		config := w.config(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}})
		config.Name = fmt.Sprintf("registry.test/repository%02d:v1", i)
		g := New(w.ctx, config)
		defer g.Close()
		wg.Go(func() {
			if err := g.relabel(desc, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	info, err := w.store.Info(w.ctx, desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(info.Labels[clabels.LabelDistributionSource+".registry.test"], ","); len(got) != repositories {
		t.Errorf("%d repositories are named, want %d: %q", len(got), repositories, got)
	}
}

// So do those that turn out to belong to another subject.
func TestManifestsOfAnotherSubjectAreLimited(t *testing.T) {
	w := newWorld(t)
	other := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("other"), Size: 5}
	var listed []ocispec.Descriptor
	for i := range 4 {
		listed = append(listed, w.artifact(spdx, &other, w.serve(fmt.Sprint(i))))
	}
	w.list(w.subject, listed...)
	out, _ := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1}, func(c *Config) { c.Limits.MaxTotalSize, c.Limits.MaxConcurrentDownloads = 2*listed[0].Size+1, 1 })
	w.wantStatus(out, labels.Truncated)
	if n := w.asked("/manifests/"); n != 3 {
		t.Errorf("%d manifests were read, want 3", n)
	}
}

// Wrong bytes, and children of another size than their index says, are bytes as well.
func TestManifestsThatAreWrongAreLimited(t *testing.T) {
	w := newWorld(t)
	var forged []ocispec.Descriptor
	for i := range 60 {
		d := w.artifact(spdx, &w.subject, w.serve(fmt.Sprint(i)))
		w.server.On(base+"manifests/"+d.Digest.String(), hostile.Content(d.MediaType, []byte("forged")))
		forged = append(forged, d)
	}
	w.list(w.subject, forged...)
	limits := func(c *Config) { c.Limits.MaxTotalSize = 10 << 20 }
	out, _ := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1}, limits)
	w.wantStatus(out, labels.Unknown) // worse than truncated
	if n := w.asked("/manifests/"); n > 3+DefaultLimits.MaxConcurrentDownloads || out.Refusals()[outcome.LimitTotalSize] == 0 {
		t.Errorf("%d manifests were asked for, refusals %v", n, out.Refusals())
	}

	w = newWorld(t)
	var indexes []ocispec.Descriptor
	for i := range 10 {
		var children []ocispec.Descriptor
		for j := range 30 {
			child := w.artifact(spdx, nil, w.serve(fmt.Sprint(i, j)))
			child.Size = 100 // it has more
			children = append(children, child)
		}
		indexes = append(indexes, w.manifest(ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, ArtifactType: spdx, Manifests: children, Subject: &w.subject,
		}, ocispec.MediaTypeImageIndex, spdx))
	}
	w.list(w.subject, indexes...)
	out, _ = w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1})
	w.wantTied(w.subject)
	w.wantStatus(out, labels.Unknown)
	if n, most := w.asked("/manifests/"), len(indexes)*(1+DefaultLimits.MaxConcurrentDownloads); n > most {
		t.Errorf("%d manifests were asked for, want %d at most: what lacks a piece needs no other", n, most)
	}
}

// An index of indexes has many small pieces, each a request and a file.
func TestPiecesOfAPullAreLimited(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("a"), w.serve("b"), w.serve("c"))
	w.list(w.subject, sbom)
	g := New(w.ctx, w.config(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1}))
	defer g.Close()
	for i := range maxPieces - 3 { // room for the manifest and two of its blobs
		if err := g.quota.reserve(ocispec.Descriptor{Digest: digest.FromString(fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
	}
	g.Image(w.subject)
	out := g.Wait(w.ctx)
	if s := out.Subjects[0]; s.Status != labels.Truncated || len(s.Taken) != 0 || !strings.Contains(s.Why, "10000 manifests and blobs in all") {
		t.Errorf("%s, %d taken: %s", s.Status, len(s.Taken), s.Why)
	}
	if n := out.Refusals()[outcome.LimitOther]; n != 1 {
		t.Errorf("refusals %v", out.Refusals())
	}
	if n := w.asked("/blobs/"); n > 2 {
		t.Errorf("%d blobs were asked for, want 2 at most", n)
	}
}

// What the image's own index names has no more room in a pull than what a registry lists.
func TestEmbeddedAttestationsAreWithinThePull(t *testing.T) {
	w := newWorld(t)
	w.list(w.subject)
	layer := w.serve("statement")
	layer.MediaType = "application/vnd.in-toto+json"
	attestation := w.artifact("", nil, layer)
	g := New(w.ctx, w.config(policy.Rule{ArtifactTypes: []string{artifact.SetAttestations}, Depth: 1}))
	defer g.Close()
	exhaustPull(t, g.quota)
	g.Image(w.subject)
	g.Embedded(w.subject.Digest, attestation)
	s := g.Wait(w.ctx).Subjects[0]
	if s.Status != labels.Truncated || len(s.Taken) != 0 || len(s.Skipped) != 1 || s.Skipped[0].Limit != outcome.LimitPull {
		t.Errorf("%s: %+v", s.Status, s.Skipped)
	}
}

// Manifests that are only read to learn their type count as well.
func TestManifestsThatAreOnlyReadAreLimited(t *testing.T) {
	w := newWorld(t)
	var listed []ocispec.Descriptor
	for i := range 4 {
		a := w.artifact("application/vnd.unwanted", &w.subject, w.serve(fmt.Sprint(i)))
		a.ArtifactType = ""
		listed = append(listed, a)
	}
	w.list(w.subject, listed...)
	out, _ := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1}, func(c *Config) { c.Limits.MaxTotalSize, c.Limits.MaxConcurrentDownloads = 2*listed[0].Size+1, 1 })
	w.wantStatus(out, labels.Truncated)
	if n := w.asked("/manifests/"); n != 3 {
		t.Errorf("%d manifests were read, want 3", n)
	}
}

// A child that indexes share is read once a pull.
func TestChildThatIndexesShareIsReadOnce(t *testing.T) {
	w := newWorld(t)
	child := w.artifact(spdx, nil, w.serve("shared"))
	var indexes []ocispec.Descriptor
	for i := range 20 {
		indexes = append(indexes, w.manifest(ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, ArtifactType: spdx, Subject: &w.subject,
			Manifests: []ocispec.Descriptor{child}, Annotations: map[string]string{"n": fmt.Sprint(i)},
		}, ocispec.MediaTypeImageIndex, spdx))
	}
	w.list(w.subject, indexes...)
	store := &countedStore{Store: w.store, opened: map[digest.Digest]int{}}
	for range 2 { // and again, when it is stored
		w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1}, func(c *Config) { c.Store = store })
		w.wantTied(w.subject, indexes...)
	}
	if n := w.asked("/manifests/" + child.Digest.String()); n != 1 {
		t.Errorf("the child was asked for %d times, want once", n)
	}
	if n := store.opened[child.Digest]; n > 2 {
		t.Errorf("the child was read %d times from the store by two pulls", n)
	}
}

// countedStore counts how often content is read.
type countedStore struct {
	content.Store
	mu     sync.Mutex
	opened map[digest.Digest]int
}

func (s *countedStore) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	s.mu.Lock()
	s.opened[desc.Digest]++
	s.mu.Unlock()
	return s.Store.ReaderAt(ctx, desc)
}

// Children whose size their index lies about count as what came of them.
func TestChildrenOfAWrongSizeAreLimited(t *testing.T) {
	w := newWorld(t)
	var indexes []ocispec.Descriptor
	for i := range 30 {
		child := w.artifact(spdx, nil, w.serve(strings.Repeat(fmt.Sprint(i), 10)))
		child.Size++
		indexes = append(indexes, w.manifest(ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, ArtifactType: spdx, Subject: &w.subject,
			Manifests: []ocispec.Descriptor{child},
		}, ocispec.MediaTypeImageIndex, spdx))
	}
	w.list(w.subject, indexes...)
	out, _ := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1}, func(c *Config) {
		c.Limits.MaxConcurrentDownloads, c.Limits.MaxTotalSize = 1, 30*1024
	})
	w.wantTied(w.subject)
	if n := len(out.Subjects[0].Skipped); n != 30 {
		t.Errorf("%d are skipped, want all", n)
	}
	if out, _ := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1}, func(c *Config) {
		c.Limits.MaxConcurrentDownloads, c.Limits.MaxTotalSize = 1, 4*1024
	}); out.Refusals()[outcome.LimitTotalSize] == 0 {
		t.Errorf("no limit stopped them: %v", out.Refusals())
	}
}

// What a pull read of referrers is not held until its end.
func TestConcludedAttemptsHoldNoManifest(t *testing.T) {
	w := newWorld(t)
	w.cosignTag(".sig")
	w.list(w.subject, w.artifact(spdx, &w.subject, w.serve("sbom")))
	config := w.config(policy.Rule{ArtifactTypes: []string{"all"}, Depth: 1})
	config.Cosign = CosignAlways
	g := New(w.ctx, config)
	defer g.Close()
	g.Image(w.subject)
	out := g.Wait(w.ctx)
	if len(out.Subjects[0].Taken) != 2 {
		t.Fatalf("taken are %+v", out.Subjects[0].Taken)
	}
	for dgst, a := range g.subjects[0].latest {
		if a.manifest != nil || a.raw != nil {
			t.Errorf("%s is held", dgst)
		}
	}
}

// Nor does an entry that is wrong about the media type hide a referrer.
func TestListingWithAWrongMediaType(t *testing.T) {
	for name, listed := range map[string]func(w *world, sig ocispec.Descriptor) []ocispec.Descriptor{
		"an index": func(_ *world, sig ocispec.Descriptor) []ocispec.Descriptor {
			sig.MediaType = ocispec.MediaTypeImageIndex
			return []ocispec.Descriptor{sig}
		},
		"an index, and then what it is": func(_ *world, sig ocispec.Descriptor) []ocispec.Descriptor {
			index := sig
			index.MediaType = ocispec.MediaTypeImageIndex
			return []ocispec.Descriptor{index, sig}
		},
	} {
		w := newWorld(t)
		sig := w.artifact(signature, &w.subject, w.serve("signed"))
		w.list(w.subject, listed(w, sig)...)
		out, selection := w.gather(policy.Rule{Required: []string{artifact.SetSignatures}, Depth: 1})
		w.wantTied(w.subject, sig)
		w.wantStatus(out, labels.Present)
		if err := out.Enforce("image", selection); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
