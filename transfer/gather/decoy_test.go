package gather

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

const oci = "application/vnd.oci.empty.v1+json"

// Registries that list no types: what is not wanted must not fill the cap, nor
// claims of size the limit, before the manifests have spoken.
func TestDecoysWithoutTypesDoNotFillTheCap(t *testing.T) {
	for _, listed := range []string{oci, signature} { // how the signature is listed
		w := newWorld(t)
		var entries []ocispec.Descriptor
		for i := range 8 {
			d := w.artifact("application/vnd.decoy", &w.subject, w.serve(fmt.Sprint("decoy", i)))
			d.ArtifactType = oci
			entries = append(entries, d)
		}
		for i := range 40 { // that do not even exist
			entries = append(entries, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: oci, Digest: digest.FromString(fmt.Sprint("none", i)), Size: 4 << 20})
		}
		sig := w.artifact(signature, &w.subject, w.serve("signed"))
		sig.ArtifactType = listed
		w.list(w.subject, append(entries, sig)...)
		out, sel := w.gather(policy.Rule{Required: []string{artifact.SetSignatures}, Depth: 1}, func(c *Config) { c.Limits.MaxReferrers = 2 })
		w.wantTied(w.subject, sig)
		if err := out.Enforce("image", sel); err != nil {
			t.Errorf("listed as %s: %.300v", listed, err)
		}
	}
}

func TestCapCountsWhatManifestsDecide(t *testing.T) {
	w := newWorld(t)
	var entries []ocispec.Descriptor
	for i := range 5 {
		d := w.artifact(spdx, &w.subject, w.serve(fmt.Sprint("sbom", i)))
		d.ArtifactType = ""
		entries = append(entries, d)
	}
	w.list(w.subject, entries...)
	out, _ := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1}, func(c *Config) { c.Limits.MaxReferrers = 3 })
	if n := len(w.tied(w.subject)); n != 3 {
		t.Errorf("%d are tied, want 3", n)
	}
	w.wantStatus(out, labels.Truncated)
}

// A decoy of the same digest, first in the listing, neither hides a signature nor is told
// of beside it.
func TestDecoyOfTheSameDigestIsNotLeft(t *testing.T) {
	w := newWorld(t)
	sig := w.artifact(signature, &w.subject, w.serve("payload"))
	decoy := sig
	decoy.ArtifactType = "text/decoy"
	path := base + "referrers/" + w.subject.Digest.String()
	w.server.On(path, hostile.Index(decoy).With("Link", `<`+path+`/next>; rel="next"`))
	w.server.On(path+"/next", hostile.Index(sig))
	out, sel := w.gather(policy.Rule{Required: []string{artifact.SetSignatures}, Depth: 1})
	w.wantTied(w.subject, sig)
	w.wantStatus(out, labels.Present)
	if err := out.Enforce("image", sel); err != nil || len(out.Subjects[0].Skipped) != 0 {
		t.Errorf("%v, left are %+v", err, out.Subjects[0].Skipped)
	}
}

// A decoy in the listing must not keep cosign's tag from being asked for.
func TestDecoyDoesNotHideCosignsTag(t *testing.T) {
	w := newWorld(t)
	other := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("other"), Size: 5}
	w.list(w.subject, w.artifact(signature, &other, w.serve("decoy")))
	layer := w.serve("payload")
	layer.MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	config := w.serve(`{}  `)
	config.MediaType = ocispec.MediaTypeImageConfig
	sig := w.manifest(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
	}, ocispec.MediaTypeImageManifest, "")
	data, err := remoteManifest(w, sig)
	if err != nil {
		t.Fatal(err)
	}
	w.server.On(base+"manifests/sha256-"+w.subject.Digest.Encoded()+".sig", hostile.Content(ocispec.MediaTypeImageManifest, data))
	out, sel := w.gather(policy.Rule{Required: []string{artifact.SetSignatures}, Depth: 1}, func(c *Config) { c.Cosign = CosignAuto })
	w.wantTied(w.subject, sig)
	if err := out.Enforce("image", sel); err != nil {
		t.Error(err)
	}
}

// Where one host has the tag, the host that failed before is not missed.
func TestCosignsTagAtTheSecondHost(t *testing.T) {
	s, sig := &subject{status: labels.Absent}, registry.CosignKinds[0]
	s.addTag(sig, nil, []outcome.Answer{{Status: labels.Unknown}, {Status: labels.Present}})
	if s.status != labels.Absent { // until what lies there is taken
		t.Errorf("status %q", s.status)
	}
	s.addTag(sig, nil, []outcome.Answer{{Status: labels.Absent}, {Status: labels.Unknown}})
	if s.status != labels.Unknown {
		t.Errorf("status %q", s.status)
	}
}
