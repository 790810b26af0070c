package gather

import (
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// unlisted says since when the subject's label has the referrer missing.
func (w *world) unlisted(referrer ocispec.Descriptor) time.Time {
	w.t.Helper()
	info, err := w.store.Info(w.ctx, w.subject.Digest)
	if err != nil {
		w.t.Fatal(err)
	}
	return labels.UnlistedSince(info.Labels, referrer.Digest, "")
}

// What a pull does to the referrers that an earlier one tied hangs on what it
// learnt: only a registry that was heard to the end has let go of anything.
func TestRefresh(t *testing.T) {
	type answer func(w *world, kept, other ocispec.Descriptor)
	list := func(w *world, referrers ...ocispec.Descriptor) { w.list(w.subject, referrers...) }
	for _, tc := range []struct {
		name   string
		rule   policy.Rule
		answer answer
		change func(w *world, kept ocispec.Descriptor)
		// Of the first referrer, after the second pull.
		tied, marked bool
	}{
		{name: "still listed", rule: sboms, answer: func(w *world, kept, other ocispec.Descriptor) { list(w, kept, other) }, tied: true},
		{name: "no longer listed", rule: sboms, answer: func(w *world, _, other ocispec.Descriptor) { list(w, other) }, tied: true, marked: true},
		{name: "nothing is listed any more", rule: sboms, answer: func(w *world, _, _ ocispec.Descriptor) { list(w) }, tied: true, marked: true},
		{name: "no longer listed, prune", rule: pruning, answer: func(w *world, _, other ocispec.Descriptor) { list(w, other) }},
		{name: "still listed, prune", rule: pruning, answer: func(w *world, kept, other ocispec.Descriptor) { list(w, kept, other) }, tied: true},
		{name: "the registry fails, prune", rule: pruning, answer: func(w *world, _, _ ocispec.Descriptor) {
			w.server.On(base+"referrers/"+w.subject.Digest.String(), hostile.Answer{Code: 403})
		}, tied: true},
		{name: "listed, but not wanted any more, prune", rule: policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Prune: true},
			answer: func(w *world, kept, other ocispec.Descriptor) { list(w, kept, other) }, tied: true},
		{name: "listed with a size that is a lie, prune", rule: pruning, answer: func(w *world, kept, other ocispec.Descriptor) {
			kept.Size = -1
			list(w, kept, other)
		}, tied: true},
		{name: "it came from elsewhere as well, prune", rule: pruning, answer: func(w *world, _, other ocispec.Descriptor) { list(w, other) },
			change: func(w *world, kept ocispec.Descriptor) {
				w.label(kept, labels.SourceKey, w.server.Host()+"/app,registry.example.com/app")
			}, tied: true, marked: true},
		{name: "it came from an archive, prune", rule: pruning, answer: func(w *world, _, other ocispec.Descriptor) { list(w, other) },
			change: func(w *world, kept ocispec.Descriptor) {
				w.label(kept, labels.SourceKey, "")
			}, tied: true},
		{name: "a tag of cosign's that was not asked for, prune", rule: pruning, answer: func(w *world, _, other ocispec.Descriptor) { list(w, other) },
			change: func(w *world, kept ocispec.Descriptor) {
				w.label(kept, labels.ArtifactTypeKey, "application/vnd.dev.cosign.artifact.sbom.v1+json")
			}, tied: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			kept, other := w.artifact(spdx, &w.subject, w.serve("kept")), w.artifact(spdx, &w.subject, w.serve("other"))
			w.list(w.subject, kept)
			w.gather(tc.rule)
			if tc.name == "listed, but not wanted any more, prune" {
				w.gather(pruning)
			}
			if tc.change != nil {
				tc.change(w, kept)
			}
			tc.answer(w, kept, other)
			w.gather(tc.rule)
			var tied bool
			for _, dgst := range w.tied(w.subject) {
				tied = tied || dgst == kept.Digest
			}
			if tied != tc.tied {
				t.Errorf("tied: %v, want %v", tied, tc.tied)
			}
			if got := w.unlisted(kept); got.IsZero() == tc.marked {
				t.Errorf("unlisted since %v", got)
			}
		})
	}
}

var pruning = policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1, Prune: true}

// label sets a label by hand; an empty value removes it.
func (w *world) label(desc ocispec.Descriptor, key, value string) {
	w.t.Helper()
	if _, err := w.store.Update(w.ctx, content.Info{Digest: desc.Digest, Labels: map[string]string{key: value}}, "labels."+key); err != nil {
		w.t.Fatal(err)
	}
}

// The mark stands from the first pull that missed the referrer, and falls with the
// first that finds it again.
func TestUnlistedMark(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	w.list(w.subject, sbom)
	w.gather(sboms)
	w.list(w.subject)
	out, _ := w.gather(sboms)
	w.wantStatus(out, labels.Absent)
	since := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	w.label(w.subject, labels.Unlisted(sbom.Digest), since.Format(time.RFC3339))
	w.gather(sboms)
	if got := w.unlisted(sbom); !got.Equal(since) {
		t.Errorf("unlisted since %v, want %v still", got, since)
	}
	w.list(w.subject, sbom)
	out, _ = w.gather(sboms)
	w.wantStatus(out, labels.Present)
	if got := w.unlisted(sbom); !got.IsZero() {
		t.Errorf("unlisted since %v though it is listed", got)
	}
}

// A tag of cosign's that is gone, or names something else, is no longer listed.
func TestRefreshOfCosignTag(t *testing.T) {
	w := newWorld(t)
	rule := policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Depth: 1, Prune: true}
	always := func(c *Config) { c.Cosign = CosignAlways }
	layer, config := w.serve("payload"), w.serve(`{"architecture":"","os":""}`)
	layer.MediaType, config.MediaType = "application/vnd.dev.cosign.simplesigning.v1+json", ocispec.MediaTypeImageConfig
	sig := w.manifest(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config,
		Layers: []ocispec.Descriptor{layer}}, ocispec.MediaTypeImageManifest, "")
	data, err := remoteManifest(w, sig)
	if err != nil {
		t.Fatal(err)
	}
	tag := base + "manifests/sha256-" + w.subject.Digest.Encoded() + ".sig"
	w.server.On(tag, hostile.Content(ocispec.MediaTypeImageManifest, data))
	w.list(w.subject)
	w.gather(rule, always)
	w.wantTied(w.subject, sig)
	w.server.On(tag, hostile.Answer{Code: 503})
	w.gather(rule, always)
	w.wantTied(w.subject, sig)
	w.server.On(tag, hostile.Answer{Code: 404})
	w.gather(rule, always)
	w.wantTied(w.subject)
}
