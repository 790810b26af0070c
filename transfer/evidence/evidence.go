// Package evidence holds the values that verification is about: what came with an image
// ([Evidence]), and what a verifier found it to prove ([Verified]).
//
// A referrer's manifest says where evidence lies ([Of]); a verifier of package trust checks
// it; package verdict counts what it proves.
//
// The package is pure: no I/O and no clock.
package evidence

import (
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Format is how evidence is written.
type Format string

// The formats.
const (
	// Bundle is a sigstore bundle, v0.1 to v0.3: a signature or an attestation.
	Bundle Format = "sigstore-bundle"
	// CosignSignature is a simple-signing payload of cosign v1 and v2, whose signature,
	// certificate and log entry are annotations of the layer.
	CosignSignature Format = "cosign-signature"
	// DSSE is an envelope of the in-toto attestation framework, as cosign v1 and v2 store
	// it; certificate and log entry are annotations of the layer.
	DSSE Format = "dsse"
	// Notation is a signature envelope of the Notary Project, JWS or COSE.
	Notation Format = "notation"
	// Statement is an in-toto statement that is not signed, as BuildKit stores it. It proves
	// nothing by itself: who signed the manifest that names it vouches for it.
	Statement Format = "statement"
)

// Formats are all of them.
var Formats = []Format{Bundle, CosignSignature, DSSE, Notation, Statement}

// Result is what became of a piece of evidence, for those who count.
type Result string

// The results.
const (
	ResultVerified Result = "verified" // by a trust of the rule
	ResultStranger Result = "stranger" // valid as far as it goes, and by nobody whom the rule names
	ResultInvalid  Result = "invalid"
	ResultUnread   Result = "unread" // too large, gone, or not what any requirement asks for
)

// Results are all of them.
var Results = []Result{ResultVerified, ResultStranger, ResultInvalid, ResultUnread}

// Evidence is one piece of what may prove something of a subject. All of it but Subject
// and Repository comes from the network.
type Evidence struct {
	Format Format
	// Subject is the manifest or index that the evidence must be about. Its media type, digest
	// and size are verified.
	Subject ocispec.Descriptor
	// Repository is where the subject comes from, with its registry and without a tag:
	// "registry.example.com/app"; "" where that is not known. A trust policy of the Notary
	// Project has statements for repositories.
	Repository string
	// MediaType is that of Data, as the referrer's manifest says.
	MediaType string
	// Data is the blob, at most [MaxSize] bytes. Its digest is verified.
	Data []byte
	// Annotations are those of the layer that names the blob.
	Annotations map[string]string
}

// Kind is what evidence proves.
type Kind string

// The kinds. A signature is never an attestation, and the reverse.
const (
	Signature   Kind = "signature"   // that somebody signed the subject
	Attestation Kind = "attestation" // that somebody said something about it
)

// Verified is what a piece of evidence proves, by one trust.
type Verified struct {
	Kind Kind
	// Identity is who signed. Equal ones are one identity, whatever trust accepts them: the
	// fingerprint of a key ("key sha256:…"), or issuer and subject of a certificate. It is
	// fit to be printed.
	Identity string
	// PredicateType is that of an attestation's statement, as it is signed.
	PredicateType string
	// Predicate is the signed predicate, JSON; nil for a signature.
	Predicate []byte
	// Names are the names of the subject that are signed, such as
	// "registry.example.com/app"; none where the format signs none.
	Names []string
	// Time is when it was signed, by a log or a timestamp authority that the trust accepts;
	// zero where none says so.
	Time time.Time
	// Notes say what was not checked, for people to read; such as "revocation is not checked".
	Notes []string
}

const (
	// MaxSize is how many bytes a blob of evidence may have.
	MaxSize = 6 << 20
	// MaxPerReferrer is how many pieces of evidence one referrer may hold: cosign v2 adds a
	// layer for each signature.
	MaxPerReferrer = 64
)
