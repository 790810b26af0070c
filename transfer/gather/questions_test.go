package gather

import (
	"fmt"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

const (
	signs   = "https://sigstore.dev/cosign/sign/v1"
	attests = "https://slsa.dev/provenance/v1"
)

// bundle has the registry serve a sigstore bundle.
func (w *world) bundle(predicate string) ocispec.Descriptor {
	annotations := map[string]string{artifact.AnnotationPredicate: predicate}
	desc := w.manifest(ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifact.TypeBundle, Config: ocispec.DescriptorEmptyJSON,
		Layers: []ocispec.Descriptor{w.serve(predicate)}, Subject: &w.subject, Annotations: annotations,
	}, ocispec.MediaTypeImageManifest, artifact.TypeBundle)
	desc.Annotations = annotations
	return desc
}

// What refers to a signature is asked for only where the rule names a depth; it leaves
// no mark of having been asked about.
func TestSignaturesAreNotAskedAboutByDefault(t *testing.T) {
	for depth, explicit := range map[int]bool{0: false, policy.DefaultDepth: true} {
		w := newWorld(t)
		sig, sbom := w.artifact(signature, &w.subject, w.serve("signed")), w.artifact(spdx, &w.subject, w.serve("sbom"))
		signing, attesting := w.bundle(signs), w.bundle(attests)
		above := w.artifact(signature, &sbom, w.serve("signed too"))
		w.list(w.subject, sig, sbom, signing, attesting)
		for _, d := range []ocispec.Descriptor{sig, signing, attesting, above} {
			w.list(d)
		}
		w.list(sbom, above)
		out, _ := w.gather(policy.Rule{ArtifactTypes: []string{policy.SetAll}, Depth: depth})
		w.wantStatus(out, labels.Present)
		w.wantTied(w.subject, sig, sbom, signing, attesting)
		w.wantTied(sbom, above)
		for name, tc := range map[string]struct {
			desc ocispec.Descriptor
			want bool
		}{"signature": {sig, explicit}, "bundle that signs": {signing, explicit}, "sbom": {sbom, true}, "bundle that attests": {attesting, true}, "signature of the sbom": {above, false}} {
			asked := w.asked("/referrers/"+tc.desc.Digest.String()) > 0
			info, err := w.store.Info(w.ctx, tc.desc.Digest)
			if err != nil {
				t.Fatal(err)
			}
			if marked := info.Labels[labels.CheckedKey] != ""; asked != tc.want || marked != tc.want {
				t.Errorf("depth %d: the %s is asked about: %t, marked: %t, want %t", depth, name, asked, marked, tc.want)
			}
		}
	}
}

// cosign 3 writes bundles and no tags: a bundle spares the questions for all of them,
// wanted or not, unless it turns out to be none or a tag may hold what is required.
func TestBundlesSpareCosignsTags(t *testing.T) {
	all := []string{".sig", ".att", ".sbom"}
	every := []string{artifact.SetSignatures, artifact.SetAttestations, artifact.SetSBOMs}
	untyped := func(d ocispec.Descriptor) ocispec.Descriptor {
		d.ArtifactType, d.Annotations = "", nil
		return d
	}
	for name, tc := range map[string]struct {
		listed func(w *world) []ocispec.Descriptor
		rule   policy.Rule
		cosign CosignTags
		want   []string
	}{
		"nothing": {func(*world) []ocispec.Descriptor { return nil }, policy.Rule{ArtifactTypes: every}, CosignAuto, all},
		"a signature that is no bundle": {
			func(w *world) []ocispec.Descriptor {
				return []ocispec.Descriptor{w.artifact(signature, &w.subject, w.serve("s"))}
			}, policy.Rule{ArtifactTypes: every}, CosignAuto, []string{".att", ".sbom"},
		},
		"a bundle that signs": {
			func(w *world) []ocispec.Descriptor { return []ocispec.Descriptor{w.bundle(signs)} },
			policy.Rule{ArtifactTypes: every}, CosignAuto, nil,
		},
		"a bundle that attests": {
			func(w *world) []ocispec.Descriptor { return []ocispec.Descriptor{w.bundle(attests)} },
			policy.Rule{ArtifactTypes: every}, CosignAuto, nil,
		},
		"a bundle, always": {
			func(w *world) []ocispec.Descriptor { return []ocispec.Descriptor{w.bundle(signs)} },
			policy.Rule{ArtifactTypes: every}, CosignAlways, all,
		},
		"a bundle whose type the listing does not tell": {
			func(w *world) []ocispec.Descriptor { return []ocispec.Descriptor{untyped(w.bundle(signs))} },
			policy.Rule{ArtifactTypes: every}, CosignAuto, nil,
		},
		"a bundle that is not wanted": {
			func(w *world) []ocispec.Descriptor { return []ocispec.Descriptor{w.bundle(attests)} },
			policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}}, CosignAuto, nil,
		},
		"a bundle that is none": {
			func(w *world) []ocispec.Descriptor {
				d := w.artifact(spdx, &w.subject, w.serve("s"))
				d.ArtifactType, d.Annotations = artifact.TypeBundle, map[string]string{artifact.AnnotationPredicate: signs}
				return []ocispec.Descriptor{d}
			}, policy.Rule{ArtifactTypes: every[:2]}, CosignAuto, all[:2],
		},
		"a bundle without what is required": {
			func(w *world) []ocispec.Descriptor { return []ocispec.Descriptor{w.bundle(attests)} },
			policy.Rule{ArtifactTypes: every, Required: []string{artifact.SetSignatures}}, CosignAuto, []string{".sig"},
		},
		"a bundle, and cosign's own type is required": {
			func(w *world) []ocispec.Descriptor { return []ocispec.Descriptor{w.bundle(signs)} },
			policy.Rule{ArtifactTypes: every, Required: []string{artifact.TypeCosignSignature}}, CosignAuto, []string{".sig"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.list(w.subject, tc.listed(w)...)
			w.gather(tc.rule, func(c *Config) { c.Cosign = tc.cosign })
			var asked []string
			for _, suffix := range all {
				if n := w.asked("sha256-" + w.subject.Digest.Encoded() + suffix); n > 0 {
					asked = append(asked, suffix)
				}
			}
			if fmt.Sprint(asked) != fmt.Sprint(tc.want) {
				t.Errorf("asked for %s, want %s", strings.Join(asked, " "), strings.Join(tc.want, " "))
			}
		})
	}
}
