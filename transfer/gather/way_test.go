package gather

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Of each referrer, taken or not, it is known how the pull met it.
func TestWays(t *testing.T) {
	w := newWorld(t)
	want := map[digest.Digest]outcome.Origin{}
	met := func(way outcome.Origin, desc ocispec.Descriptor) ocispec.Descriptor {
		want[desc.Digest] = way
		return desc
	}
	sized := func(desc ocispec.Descriptor, size int64) ocispec.Descriptor {
		desc.Size = size
		return desc
	}
	gone := func(name, artifactType string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType, Digest: digest.FromString(name), Size: 9}
	}
	w.list(w.subject,
		met(outcome.Listed, w.artifact(signature, &w.subject, w.serve("first"))),
		met(outcome.Listed, w.artifact(signature, &w.subject, w.serve("over the cap"))),
		met(outcome.Listed, w.artifact("text/unwanted", &w.subject)),
		met(outcome.Listed, sized(gone("rejected", signature), -1)),
		met(outcome.Listed, w.artifact(spdx, &w.subject)), // denied
	)
	met(outcome.Tagged, w.cosignTag(".sig"))
	layer := w.serve("no statement")
	config := w.config(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures, artifact.SetAttestations}, Depth: 1})
	config.Cosign, config.Limits.MaxReferrers = CosignAlways, 1
	g := New(w.ctx, config)
	defer g.Close()
	g.Image(w.subject)
	g.Embedded(w.subject.Digest, met(outcome.Embedded, w.artifact("", nil, layer)))
	g.Embedded(w.subject.Digest, met(outcome.Embedded, gone("over the cap of the index", "")))
	w.server.On(base+"manifests/sha256-"+w.subject.Digest.Encoded()+".att", hostile.Status(403))
	s := g.Wait(w.ctx).Subjects[0]
	got := map[digest.Digest]outcome.Origin{}
	for _, r := range s.Taken {
		got[r.Digest] = r.Via
	}
	for _, l := range s.Skipped {
		got[l.Digest] = l.Via
	}
	for dgst, way := range want {
		if got[dgst] != way {
			t.Errorf("%s was met by %q, want %q: %s", dgst, got[dgst], way, s.Why)
		}
	}
	if len(s.Taken) != 2 || len(got) != len(want) {
		t.Errorf("%d are taken, %v are known, want %v", len(s.Taken), got, want)
	}
}

// What has no room in a pull is known by its way as well.
func TestWaysOverThePullsLimits(t *testing.T) {
	w := newWorld(t)
	tag, list := w.cosignTag(".sig"), w.artifact(signature, &w.subject)
	w.list(w.subject, list)
	config := w.config(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Depth: 1})
	config.Cosign, config.Limits.MaxTotalSize = CosignAlways, 1
	g := New(w.ctx, config)
	defer g.Close()
	exhaustPull(t, g.quota)
	g.Image(w.subject)
	s := g.Wait(w.ctx).Subjects[0]
	got := map[digest.Digest]outcome.Referrer{}
	for _, l := range s.Skipped {
		got[l.Digest] = l
	}
	if l := got[tag.Digest]; l.Via != outcome.Tagged || l.Limit != outcome.LimitTotalSize {
		t.Errorf("the tag's is left as %+v", l)
	}
	if l := got[list.Digest]; l.Via != outcome.Listed || l.Limit != outcome.LimitPull {
		t.Errorf("the listing's is left as %+v", l)
	}
}
