package artifact

import "testing"

const (
	bundleV01 = "application/vnd.dev.sigstore.bundle+json;version=0.1"
	bundleV03 = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

func predicate(p string) map[string]string {
	return map[string]string{"dev.sigstore.bundle.predicateType": p}
}

// The types are those that producers are known to write.
func TestSetOf(t *testing.T) {
	t.Parallel()
	const sign = "https://sigstore.dev/cosign/sign/v1"
	for _, tc := range []struct {
		producer, mime string
		annotations    map[string]string
		want           string
	}{
		{"cosign v3, signature", bundleV03, predicate(sign), SetSignatures},
		{"GitHub, provenance", bundleV03, predicate("https://slsa.dev/provenance/v1"), SetAttestations},
		{"bundle that says nothing", bundleV03, nil, ""},
		{"bundle with an empty predicate", bundleV03, predicate(""), ""},
		{"bundle of a message", bundleV03, map[string]string{"dev.sigstore.bundle.content": "message-signature"}, SetSignatures},
		{"bundle of an envelope", bundleV03, map[string]string{"dev.sigstore.bundle.content": "dsse-envelope"}, ""},
		{"the predicate goes before the content", bundleV03, map[string]string{
			"dev.sigstore.bundle.content":       "message-signature",
			"dev.sigstore.bundle.predicateType": "https://slsa.dev/provenance/v1",
		}, SetAttestations},
		{"the predicate is compared whole", bundleV03, predicate(sign + "/x"), SetAttestations},
		{"bundle v0.1", bundleV01, predicate(sign), SetSignatures},
		{"bundle v0.2", "application/vnd.dev.sigstore.bundle+json; version=0.2", predicate("https://spdx.dev/Document"), SetAttestations},
		{"bundle of tomorrow", "application/vnd.dev.sigstore.bundle.v1+json", predicate(sign), SetSignatures},
		{"bundle in capitals", "APPLICATION/VND.DEV.SIGSTORE.BUNDLE.V0.3+JSON", predicate(sign), SetSignatures},
		{"not a bundle by its name", "application/vnd.dev.sigstore.bundles+json", predicate(sign), ""},
		{"not a bundle by its suffix", "application/vnd.dev.sigstore.bundle.v0.3+cbor", predicate(sign), ""},
		{"a bundle's bare name", "application/vnd.dev.sigstore.bundle", predicate(sign), ""},
		{"a predicate on what is no bundle", "application/vnd.in-toto+json", predicate(sign), SetAttestations},

		{"cosign v2, OCI 1.1, signature", "application/vnd.dev.cosign.artifact.sig.v1+json", nil, SetSignatures},
		{"cosign v2, OCI 1.1, attestation", "application/vnd.dev.cosign.artifact.att.v1+json", nil, SetAttestations},
		{"cosign v2, OCI 1.1, SBOM", "application/vnd.dev.cosign.artifact.sbom.v1+json", nil, SetSBOMs},
		{"layer of cosign's .sig", "application/vnd.dev.cosign.simplesigning.v1+json", nil, SetSignatures},
		{"layer of cosign's .att", "application/vnd.dsse.envelope.v1+json", nil, SetAttestations},
		{"notation", "application/vnd.cncf.notary.signature", nil, SetSignatures},
		{"Docker Scout", "application/vnd.in-toto+json", map[string]string{"in-toto.io/predicate-type": "https://spdx.dev/Document"}, SetAttestations},
		{"BuildKit", "application/vnd.docker.attestation.manifest.v1+json", nil, SetAttestations},
		{"trivy, SPDX", "application/spdx+json", nil, SetSBOMs},
		{"trivy, CycloneDX", "application/vnd.cyclonedx+json", nil, SetSBOMs},
		{"SPDX tag-value", "text/spdx", nil, SetSBOMs},
		{"SPDX as text", "text/spdx+json", nil, SetSBOMs},
		{"CycloneDX XML", "application/vnd.cyclonedx+xml", nil, SetSBOMs},
		{"Harbor", "application/vnd.goharbor.harbor.sbom.v1", nil, SetSBOMs},
		{"syft", "application/vnd.syft+json", nil, SetSBOMs},
		{"SOCI", "application/vnd.amazon.soci.index.v1+json", nil, ""},
		{"free-form", "sbom/cyclone-dx", nil, ""},
		{"nothing", "", nil, ""},
		{"case and parameters", "Application/SPDX+json; charset=utf-8", nil, SetSBOMs},
	} {
		t.Run(tc.producer, func(t *testing.T) {
			t.Parallel()
			r := Referrer{ArtifactType: tc.mime, Annotations: tc.annotations}
			if got := SetOf(r); got != tc.want {
				t.Errorf("%q is in set %q, want %q", tc.mime, got, tc.want)
			}
			if all := Readings(r); IsBundle(NormalizeType(tc.mime)) && tc.want == "" {
				if len(all) != 2 || all[0].Set != SetSignatures || all[1].Set != SetAttestations {
					t.Errorf("%q reads as %v, want a signature or an attestation", tc.mime, all)
				}
			} else if len(all) != 1 || all[0].Set != tc.want {
				t.Errorf("%q reads as %v, want %q alone", tc.mime, all, tc.want)
			}
		})
	}
}

// A member that is not written as NormalizeType gives it would never be found.
func TestSetMembersAreNormalized(t *testing.T) {
	t.Parallel()
	for mime := range sets {
		if NormalizeType(mime) != mime {
			t.Errorf("%q is not normalized", mime)
		}
	}
}
