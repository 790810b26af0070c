package gather

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// An image that has more manifests than a pull asks about is not known in full, and what is
// stored of it says so.
func TestUnaskedManifestsTruncateTheRoot(t *testing.T) {
	w := newWorld(t)
	w.list(w.subject)
	g := New(w.ctx, w.config(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Depth: 1}))
	defer g.Close()
	g.Image(w.subject)
	for g.quota.addSubject(true) == nil { // until no more are asked about
	}
	g.Image(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("one too many"), Size: 1}, w.subject.Digest)
	out := g.Wait(w.ctx)
	if err := g.Tie(w.ctx, out, w.subject); err != nil {
		t.Fatal(err)
	}
	w.wantStatus(out, labels.Truncated)
}

// The type of an image's root is the registry's word: one that is neither a manifest's
// nor an index's gets nothing past a rule.
func TestRootOfAnotherTypeSatisfiesNothing(t *testing.T) {
	for name, rule := range map[string]policy.Rule{
		"required":          {Required: []string{artifact.SetSignatures}},
		"on_error = fail":   {ArtifactTypes: []string{artifact.SetSignatures}, OnError: policy.Fail},
		"on_error = warn":   {ArtifactTypes: []string{artifact.SetSignatures}},
		"required, by warn": {Required: []string{artifact.SetSBOMs}, OnError: policy.Warn},
	} {
		for _, mediaType := range []string{"application/octet-stream", "APPLICATION/vnd.oci.image.manifest.v1+json", ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer, ""} {
			t.Run(name+" "+mediaType, func(t *testing.T) {
				w := newWorld(t)
				w.subject.MediaType = mediaType
				out, sel := w.gather(rule)
				w.wantStatus(out, labels.Unknown)
				err := out.Enforce("image", sel)
				if may := len(rule.Required) == 0 && rule.OnError != policy.Fail; may != (err == nil) {
					t.Fatalf("the pull ends with %v", err)
				}
				if says := fmt.Sprintf("its media type %q is neither", mediaType); !strings.Contains(out.Subjects[0].Why, says) || err != nil && !strings.Contains(err.Error(), says) {
					t.Errorf("%v, and %q, do not say %q", err, out.Subjects[0].Why, says)
				}
				if n := len(w.server.Requests()); n != 0 {
					t.Errorf("%d requests", n)
				}
			})
		}
	}
}

// Referrers cannot use up what the image's own manifests have.
func TestReferrersLeaveRoomForTheImage(t *testing.T) {
	g := New(t.Context(), newWorld(t).config(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}}))
	g.Close() // nothing is asked; only the counting matters
	g.closed = false
	at := func(name string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(name), Size: 1}
	}
	for i := range outcome.MaxSubjects {
		if g.add(&subject{desc: at(fmt.Sprint("referrer", i)), depth: 1}, false) != nil {
			t.Fatalf("referrer %d is over the limit", i)
		}
	}
	if g.add(&subject{desc: at("another"), depth: 1}, false) == nil {
		t.Error("one referrer more is not over the limit")
	}
	for i := range outcome.MaxSubjects + 3 {
		g.Image(at(fmt.Sprint("manifest", i)))
	}
	if out := g.Wait(t.Context()); out.Unasked != 3 {
		t.Errorf("%d manifests of the image were not asked about, want 3", out.Unasked)
	}
}

// Why something that was taken does not count, and why something else could not be, is
// not hidden behind what nobody wanted.
func TestRefusalNamesItsCause(t *testing.T) {
	w := newWorld(t)
	var listed []ocispec.Descriptor
	for i := range 10 {
		listed = append(listed, w.artifact("application/vex+json", &w.subject, w.serve(fmt.Sprint("vex", i))))
	}
	bundle := w.artifact("application/vnd.dev.sigstore.bundle.v0.3+json", &w.subject, w.serve("bundle"))
	gone := w.artifact(signature, &w.subject, ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("gone"), Size: 4})
	w.list(w.subject, append(listed, bundle, gone)...)
	out, sel := w.gather(policy.Rule{Required: []string{artifact.SetSignatures}, Depth: 1})
	err := out.Enforce("image", sel)
	for _, want := range []string{
		digest.FromString("gone").String() + ": 404 Not Found",
		bundle.Digest.String() + " does not count: it does not say what it holds (annotation dev.sigstore.bundle.predicateType)",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
}

// A signature of cosign's under its tag is asked for where the rule requires that type,
// although the listing has a signature of another.
func TestCosignsTagThatIsRequired(t *testing.T) {
	w := newWorld(t)
	sig := w.cosignTag(".sig")
	listed := w.artifact(signature, &w.subject, w.serve("signed"))
	w.list(w.subject, listed)
	out, sel := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Required: []string{artifact.TypeCosignSignature}, Depth: 1},
		func(c *Config) { c.Cosign = CosignAuto })
	w.wantTied(w.subject, sig, listed)
	if err := out.Enforce("image", sel); err != nil {
		t.Error(err)
	}
}

// Harbor lists what lies under cosign's tags, though it names no subject. That must not
// keep it from being taken by its tag.
func TestCosignsTagThatTheListingHasAsWell(t *testing.T) {
	for _, listedAs := range []string{ocispec.MediaTypeImageConfig, artifact.TypeCosignSignature, "application/vnd.unwanted"} {
		t.Run(listedAs, func(t *testing.T) {
			w := newWorld(t)
			sig := w.cosignTag(".sig")
			listed := sig
			listed.ArtifactType = listedAs
			w.list(w.subject, listed)
			out, sel := w.gather(policy.Rule{Required: []string{artifact.SetSignatures}, Depth: 1}, func(c *Config) { c.Cosign = CosignAuto })
			w.wantTied(w.subject, sig)
			w.wantStatus(out, labels.Present)
			if err := out.Enforce("image", sel); err != nil {
				t.Error(err)
			}
		})
	}
}

// A part of the image may be met as a referrer of another part first, and has cosign's tags
// asked for as soon as it is known for what it is.
func TestCosignsTagOfAPartFirstMetAsAReferrer(t *testing.T) {
	w := newWorld(t)
	part := w.artifact(signature, &w.subject, w.serve("signed"))
	w.list(w.subject, part)
	sig := w.cosignTagOf(part, ".sig")
	config := w.config(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Depth: 2})
	config.Cosign = CosignAuto
	g := New(w.ctx, config)
	defer g.Close()
	g.Image(w.subject)
	for w.asked("/referrers/"+part.Digest.String()) == 0 {
		if w.ctx.Err() != nil {
			t.Fatal("the part was never asked about as a referrer")
		}
		time.Sleep(time.Millisecond)
	}
	g.mu.Lock()
	discovered := g.bySubj[part.Digest].discovered
	g.mu.Unlock()
	<-discovered // and so has been passed over by what asks for tags
	g.Image(artifact.Plain(part))
	g.Image(artifact.Plain(part))
	out := g.Wait(w.ctx)
	if err := g.Tie(w.ctx, out, w.subject); err != nil {
		t.Fatal(err)
	}
	w.wantTied(part, sig)
	if n := w.asked("sha256-" + part.Digest.Encoded() + ".sig"); n != 1 {
		t.Errorf("cosign's tag was asked for %d times", n)
	}
}

// cosignTag has the registry serve a signature of cosign's under the subject's tag.
func (w *world) cosignTag(suffix string) ocispec.Descriptor { return w.cosignTagOf(w.subject, suffix) }

func (w *world) cosignTagOf(subject ocispec.Descriptor, suffix string) ocispec.Descriptor {
	w.t.Helper()
	layer := w.serve("payload")
	layer.MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	config := w.serve(`{"architecture":"","os":""}`)
	config.MediaType = ocispec.MediaTypeImageConfig
	sig := w.manifest(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
	}, ocispec.MediaTypeImageManifest, "")
	data, err := remoteManifest(w, sig)
	if err != nil {
		w.t.Fatal(err)
	}
	w.server.On(base+"manifests/sha256-"+subject.Digest.Encoded()+suffix, hostile.Content(ocispec.MediaTypeImageManifest, data))
	return sig
}

// A part of the image is none of its referrers, whatever it looks like and whoever says
// so: the image's index of an attestation, or one of cosign's tags. Nor is it one if it
// turns out to be a part only afterwards.
func TestPartsOfTheImageAreNoReferrers(t *testing.T) {
	for name, later := range map[string]bool{"known before": false, "known afterwards": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			layer, image := w.serve("statement"), w.serve(`{"architecture":"unknown","os":"unknown"}`)
			layer.MediaType, image.MediaType = "application/vnd.in-toto+json", ocispec.MediaTypeImageConfig
			attestation := w.manifest(ocispec.Manifest{
				Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: image, Layers: []ocispec.Descriptor{layer},
			}, ocispec.MediaTypeImageManifest, "")
			signature := w.cosignTag(".sig")
			w.list(w.subject)
			w.list(attestation)
			w.list(signature)
			config := w.config(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures, artifact.SetAttestations}, Depth: 1})
			config.Cosign = CosignAlways
			g := New(w.ctx, config)
			defer g.Close()
			parts := func() {
				g.Image(attestation, w.subject.Digest)
				g.Image(signature, w.subject.Digest)
			}
			if !later {
				parts()
			}
			g.Image(w.subject)
			g.Embedded(w.subject.Digest, attestation)
			if later {
				g.mu.Lock()
				s := g.bySubj[w.subject.Digest]
				g.mu.Unlock()
				w.awaitTaken(s, 2)
				parts()
			}
			for _, s := range g.Wait(w.ctx).Subjects {
				if s.Digest != w.subject.Digest {
					continue
				}
				if len(s.Taken) != 0 {
					t.Errorf("taken are %+v", s.Taken)
				}
				if n := strings.Count(fmt.Sprint(s.Skipped), "it is a part of the image itself"); !later && n != 2 {
					t.Errorf("left are %+v", s.Skipped)
				}
			}
		})
	}
}

// What lies under one of cosign's tags and is no signature makes nothing present.
func TestJunkUnderCosignsTag(t *testing.T) {
	w := newWorld(t)
	w.list(w.subject)
	w.server.On(base+"manifests/sha256-"+w.subject.Digest.Encoded()+".sig",
		hostile.Content(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"`+ocispec.DescriptorEmptyJSON.Digest.String()+`","size":2},"layers":[]}`)))
	out, _ := w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, Depth: 1}, func(c *Config) { c.Cosign = CosignAuto })
	w.wantTied(w.subject)
	w.wantStatus(out, labels.Absent)
	if why := out.Subjects[0].Why; !strings.Contains(why, "cosign's tag is no") {
		t.Error(why)
	}
}

// What the image's index calls an attestation satisfies a rule only if it is one.
func TestEmbeddedAttestations(t *testing.T) {
	image := ocispec.MediaTypeImageConfig
	for _, tc := range []struct {
		name                string
		artifactType, layer string // of the manifest; "" for none
		config              string
		itself              bool // it is the subject
		subject             bool // it names the subject
		listed              bool // by the registry as well, and first
		want                bool
	}{
		{name: "as BuildKit writes it", config: image, layer: "application/vnd.in-toto+json", want: true},
		{name: "as BuildKit writes it now", artifactType: artifact.TypeBuildKitAttestation, config: image, layer: "application/vnd.in-toto+json", subject: true, want: true},
		{name: "listed as well, without a subject", config: image, layer: "application/vnd.in-toto+json", listed: true, want: true},
		{name: "listed as well", artifactType: artifact.TypeBuildKitAttestation, config: image, layer: "application/vnd.in-toto+json", subject: true, listed: true, want: true},
		{name: "a signature by its type alone", artifactType: signature, config: image, layer: "text/plain"},
		{name: "another image", config: image, layer: ocispec.MediaTypeImageLayerGzip},
		{name: "no layers", config: image},
		{name: "the image itself", itself: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: tc.artifactType, Config: w.serve("{} "), Layers: []ocispec.Descriptor{}}
			m.Config.MediaType = tc.config
			if tc.layer != "" {
				layer := w.serve("statement")
				layer.MediaType = tc.layer
				m.Layers = append(m.Layers, layer)
			}
			if tc.subject {
				m.Subject = &w.subject
			}
			attestation := w.manifest(m, ocispec.MediaTypeImageManifest, artifact.TypeBuildKitAttestation)
			if tc.itself {
				attestation = w.subject
			}
			w.list(w.subject)
			if tc.listed {
				w.list(w.subject, attestation)
			}
			config := w.config(policy.Rule{ArtifactTypes: []string{policy.SetAll}, Required: []string{policy.SetAll}, Depth: 1})
			g := New(w.ctx, config)
			defer g.Close()
			g.Image(w.subject)
			if tc.listed {
				g.wg.Wait() // the listing's entry has been judged
			}
			attestation.ArtifactType = ""
			g.Embedded(w.subject.Digest, attestation)
			out := g.Wait(w.ctx)
			if n := len(out.Subjects[0].Taken); (n == 1) != tc.want || n > 1 {
				t.Errorf("%d are taken, want one: %t; %s", n, tc.want, out.Subjects[0].Why)
			}
			if err := out.Enforce("image", config.Selection); (err == nil) != tc.want {
				t.Errorf("%v, want none: %t", err, tc.want)
			}
		})
	}
}
