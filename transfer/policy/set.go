package policy

import "strings"

// The sets that a rule may name instead of single types.
const (
	SetSignatures   = "signatures"
	SetAttestations = "attestations"
	SetSBOMs        = "sboms"
	SetAll          = "all"
)

var setNames = []string{SetSignatures, SetAttestations, SetSBOMs, SetAll}

// Types that the rest of the code has to name.
const (
	// TypeCosignSignature, TypeCosignAttestation and TypeCosignSBOM are what
	// cosign v2 calls its artifacts with OCI 1.1, and what the artifacts under
	// its older tags (.sig, .att, .sbom) are taken for.
	TypeCosignSignature   = "application/vnd.dev.cosign.artifact.sig.v1+json"
	TypeCosignAttestation = "application/vnd.dev.cosign.artifact.att.v1+json"
	TypeCosignSBOM        = "application/vnd.dev.cosign.artifact.sbom.v1+json"
	// TypeBuildKitAttestation is BuildKit's attestation manifest.
	TypeBuildKitAttestation = "application/vnd.docker.attestation.manifest.v1+json"
)

// sets names the members of each set, normalized. Sigstore's bundles are in
// none: their annotation tells (see bundleSet).
var sets = map[string]string{
	TypeCosignSignature: SetSignatures,
	"application/vnd.dev.cosign.simplesigning.v1+json": SetSignatures,
	"application/vnd.cncf.notary.signature":            SetSignatures, // notation, AWS Signer

	TypeCosignAttestation:                   SetAttestations,
	TypeBuildKitAttestation:                 SetAttestations,
	"application/vnd.in-toto+json":          SetAttestations, // Docker Scout, hardened images, cosign
	"application/vnd.dsse.envelope.v1+json": SetAttestations,

	TypeCosignSBOM:                            SetSBOMs,
	"application/spdx+json":                   SetSBOMs,
	"application/vnd.cyclonedx+json":          SetSBOMs,
	"application/vnd.cyclonedx+xml":           SetSBOMs,
	"application/vnd.cyclonedx":               SetSBOMs,
	"text/spdx":                               SetSBOMs,
	"text/spdx+json":                          SetSBOMs,
	"application/vnd.syft+json":               SetSBOMs,
	"application/vnd.goharbor.harbor.sbom.v1": SetSBOMs,
}

// Annotations are those that sets look at.
var Annotations = []string{annotationPredicate, annotationContent}

const (
	// annotationPredicate tells a bundle's signature from an attestation.
	annotationPredicate = "dev.sigstore.bundle.predicateType"
	// annotationContent is "message-signature" for a bundle that signs the
	// image itself rather than a statement about it.
	annotationContent = "dev.sigstore.bundle.content"
	predicateSign     = "https://sigstore.dev/cosign/sign/v1"
	bundlePrefix      = "application/vnd.dev.sigstore.bundle"
)

// SetOf returns the set that the referrer belongs to, or "" where it belongs to
// none or its type does not tell (a sigstore bundle without its annotation).
func SetOf(r Referrer) string {
	mime := normalize(r.ArtifactType)
	if isBundle(mime) {
		return bundleSet(r)
	}
	return sets[mime]
}

// reading is what a referrer is taken to be: its normalized type and the set that
// it belongs to, "" for none.
type reading struct{ mime, set string }

// readings returns what a referrer can be. That is one thing, except for a sigstore
// bundle without its annotation: it is a signature or an attestation.
func readings(r Referrer) []reading {
	mime := normalize(r.ArtifactType)
	if !isBundle(mime) {
		return []reading{{mime, sets[mime]}}
	}
	if set := bundleSet(r); set != "" {
		return []reading{{mime, set}}
	}
	return []reading{{mime, SetSignatures}, {mime, SetAttestations}}
}

// isBundle covers every version: v0.3 has it in its name
// ("….bundle.v0.3+json"), earlier ones in a parameter ("….bundle+json;version=0.2").
func isBundle(mime string) bool {
	rest, ok := strings.CutPrefix(mime, bundlePrefix)
	return ok && strings.HasSuffix(rest, "+json") && (rest[0] == '.' || rest[0] == '+')
}

func bundleSet(r Referrer) string {
	switch predicate := r.Annotations[annotationPredicate]; {
	case predicate == predicateSign:
		return SetSignatures
	case predicate != "":
		return SetAttestations
	case r.Annotations[annotationContent] == "message-signature":
		return SetSignatures
	default:
		return ""
	}
}
