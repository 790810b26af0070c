package artifact

import (
	"maps"
	"slices"
	"strings"
)

// The sets that artifacts belong to. A rule may name one in place of types.
const (
	SetSignatures   = "signatures"
	SetAttestations = "attestations"
	SetSBOMs        = "sboms"
)

// Artifact types that the rest of the code has to name.
const (
	// TypeCosignSignature, TypeCosignAttestation and TypeCosignSBOM are what cosign v2
	// calls its artifacts with OCI 1.1. The artifacts under its older tags (.sig, .att,
	// .sbom) count as the same.
	TypeCosignSignature   = "application/vnd.dev.cosign.artifact.sig.v1+json"
	TypeCosignAttestation = "application/vnd.dev.cosign.artifact.att.v1+json"
	TypeCosignSBOM        = "application/vnd.dev.cosign.artifact.sbom.v1+json"
	// TypeBuildKitAttestation is BuildKit's attestation manifest.
	TypeBuildKitAttestation = "application/vnd.docker.attestation.manifest.v1+json"
	// TypeBundle is the newest version of sigstore's bundle.
	TypeBundle = bundlePrefix + ".v0.3+json"
)

// sets names the members of each set, normalized. Sigstore's bundles are in none:
// their annotation tells (see bundleSet).
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

// Annotations are those that tell which set an artifact belongs to.
var Annotations = []string{AnnotationPredicate, annotationContent}

const (
	// AnnotationPredicate tells a sigstore bundle that signs from one that attests.
	AnnotationPredicate = "dev.sigstore.bundle.predicateType"
	// annotationContent is "message-signature" for a bundle that signs the
	// image itself rather than a statement about it.
	annotationContent = "dev.sigstore.bundle.content"
	predicateSign     = "https://sigstore.dev/cosign/sign/v1"
	bundlePrefix      = "application/vnd.dev.sigstore.bundle"
)

// Referrer is what a listing or a manifest says of a referrer: enough to decide
// whether it is wanted.
type Referrer struct {
	// ArtifactType is the manifest's artifactType, or its config's media type
	// where that is empty (OCI image-spec, "Guidelines for Artifact Usage").
	ArtifactType string
	// Annotations are those of the manifest; a listing repeats them.
	Annotations map[string]string
	// Hollow says that the manifest names no content, or only the empty descriptor
	// (OCI image-spec, "Guidance for an Empty Descriptor").
	Hollow bool
}

// SetOf returns the set that the referrer belongs to. It is "" for a referrer that
// belongs to none, or whose type does not tell (a sigstore bundle without its
// annotation).
func SetOf(r Referrer) string {
	mime := NormalizeType(r.ArtifactType)
	if IsBundle(mime) {
		return bundleSet(r)
	}
	return sets[mime]
}

// SetOfType is SetOf for an artifact of which the type alone is known.
func SetOfType(artifactType string) string { return SetOf(Referrer{ArtifactType: artifactType}) }

// TypesOf returns the types, sorted, that are in the set by their name alone.
func TypesOf(set string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(sets)), func(mime string) bool { return sets[mime] != set })
}

// Reading is what a referrer may be: its normalized type and the set that it belongs
// to, "" for none.
type Reading struct{ Type, Set string }

// Readings returns all that a referrer may be. That is one reading, except for a
// sigstore bundle without its annotation: it is a signature or an attestation.
func Readings(r Referrer) []Reading {
	mime := NormalizeType(r.ArtifactType)
	if !IsBundle(mime) {
		return []Reading{{mime, sets[mime]}}
	}
	if set := bundleSet(r); set != "" {
		return []Reading{{mime, set}}
	}
	return []Reading{{mime, SetSignatures}, {mime, SetAttestations}}
}

// IsBundle reports whether a normalized type is a sigstore bundle of any version: v0.3
// has it in its name ("….bundle.v0.3+json"), earlier ones in a parameter
// ("….bundle+json;version=0.2").
func IsBundle(mime string) bool {
	rest, ok := strings.CutPrefix(mime, bundlePrefix)
	return ok && strings.HasSuffix(rest, "+json") && (rest[0] == '.' || rest[0] == '+')
}

func bundleSet(r Referrer) string {
	switch predicate := r.Annotations[AnnotationPredicate]; {
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

// NormalizeType brings a media type into the form that is compared: RFC 6838 makes
// names case-insensitive, and parameters do not change what an artifact is. The
// exception is sigstore's first bundle type, whose version is a parameter; sets know
// it by its name alone.
func NormalizeType(mediaType string) string {
	name, _, _ := strings.Cut(mediaType, ";")
	return strings.ToLower(strings.TrimSpace(name))
}
