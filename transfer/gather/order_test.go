package gather

import (
	"fmt"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Which referrers the cap has room for is decided by the registry's order, where only
// manifests decide as well, and not by whose manifest comes first.
func TestCapFollowsTheOrderOfTheListing(t *testing.T) {
	const requests = 5 // for manifests, until one that is wanted has no room
	w := newWorld(t)
	var listed []ocispec.Descriptor
	for i := range 8 {
		artifactType := signature
		if i == 1 {
			artifactType = "application/vnd.decoy"
		}
		d := w.artifact(artifactType, &w.subject, w.serve(fmt.Sprint(i)))
		d.ArtifactType = oci
		listed = append(listed, d)
	}
	first, err := remoteManifest(w, listed[0])
	if err != nil {
		t.Fatal(err)
	}
	slow := hostile.Content(ocispec.MediaTypeImageManifest, first)
	slow.Drip = 100 * time.Microsecond
	w.server.On(base+"manifests/"+listed[0].Digest.String(), slow)
	w.list(w.subject, listed...)
	config := w.config(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Depth: 1})
	config.Limits.MaxReferrers = 3
	before := w.asked("/manifests/")
	for range 3 { // pulled again, it takes the same
		g := New(w.ctx, config)
		g.Image(w.subject)
		out := g.Wait(w.ctx)
		if err := g.Tie(w.ctx, out, w.subject); err != nil {
			t.Fatal(err)
		}
		w.wantTied(w.subject, listed[0], listed[2], listed[3])
		w.wantStatus(out, labels.Truncated)
		if n := out.Refusals()[outcome.LimitReferrers]; n != 4 {
			t.Errorf("%d are over the cap, want 4", n)
		}
		if n := w.asked("/manifests/") - before; before >= 0 && n != requests {
			t.Errorf("%d requests for manifests, want %d", n, requests)
		}
		before = -1 // those that are stored are not asked for again
		g.Close()
	}
	w.wantNoIngest()
}

// One that hangs does not keep those waiting that have room whatever it is.
func TestHangingManifestKeepsNoneWithRoomWaiting(t *testing.T) {
	w := newWorld(t)
	hung := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: oci, Digest: w.serve("hung").Digest, Size: 4}
	w.server.On(base+"manifests/"+hung.Digest.String(), hostile.Answer{Hang: true})
	entries := []ocispec.Descriptor{hung}
	for i := range 3 {
		sig := w.artifact(signature, &w.subject, w.serve(fmt.Sprint(i)))
		sig.ArtifactType = oci
		entries = append(entries, sig)
	}
	w.list(w.subject, entries...)
	out, sel := w.gatherWith(policy.Rule{Required: []string{artifact.SetSignatures}, Depth: 1}, 2,
		func(c *Config) { c.Limits.MaxReferrers, c.Limits.Timeout = 3, time.Millisecond })
	w.wantTied(w.subject, entries[1], entries[2]) // the last waits for its turn
	if err := out.Enforce("image", sel); err != nil {
		t.Error(err)
	}
}

// An entry that a later page contradicts keeps its place.
func TestEntryThatIsContradictedKeepsItsPlace(t *testing.T) {
	w := newWorld(t)
	var listed []ocispec.Descriptor
	for i := range 4 {
		sig := w.artifact(signature, &w.subject, w.serve(fmt.Sprint(i)))
		sig.ArtifactType = oci
		listed = append(listed, sig)
	}
	again := listed[0]
	again.ArtifactType = signature
	path := base + "referrers/" + w.subject.Digest.String()
	w.server.On(path, hostile.Index(listed...).With("Link", `<`+path+`/next>; rel="next"`))
	w.server.On(path+"/next", hostile.Index(again))
	for range 10 {
		w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Depth: 1}, func(c *Config) { c.Limits.MaxReferrers = 2 })
		w.wantTied(w.subject, listed[0], listed[1])
	}
}

// One that hangs keeps no other waiting where all have room.
func TestHangingManifestKeepsNoneWaitingBelowTheCap(t *testing.T) {
	w := newWorld(t)
	hung := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: oci, Digest: w.serve("hung").Digest, Size: 4}
	w.server.On(base+"manifests/"+hung.Digest.String(), hostile.Answer{Hang: true})
	sig := w.artifact(signature, &w.subject, w.serve("signed"))
	sig.ArtifactType = oci
	w.list(w.subject, hung, sig)
	out, _ := w.gatherWith(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Depth: 1}, 1,
		func(c *Config) { c.Limits.MaxReferrers, c.Limits.Timeout = 2, time.Millisecond })
	w.wantTied(w.subject, sig)
	w.wantStatus(out, labels.Unknown)
}
