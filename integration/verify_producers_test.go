package integration

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// producer is a way in which images are signed or attested.
type producer struct {
	name   string
	format string // of the evidence, as `ctr referrers verify` prints it
	entry  string // of the rule, for the trust "signer"
	signer func(t *testing.T) signer
}

// signer is one who signs in that way.
type signer struct {
	trust    string // that it is named "signer"
	identity string
	sign     func(t *testing.T, image ruled)
}

const spdxPredicate = "https://spdx.dev/Document"

var (
	anySignature   = signedBy(`by = ["signer"]`)
	anyAttestation = attestedBy(`predicate_type = "`+spdxPredicate+`"`, `by = ["signer"]`)
)

// producers are all of them: what they sign is made when the test runs.
var producers = []producer{
	{"cosign v3 sign", "sigstore-bundle", anySignature, cosignWithKey("cosign", "sign")},
	{"cosign v2 sign", "cosign-signature", anySignature, cosignWithKey("cosign2", "sign")},
	{"cosign v2 sign, OCI 1.1", "cosign-signature", anySignature, cosignWithKey("cosign2", "sign", "--registry-referrers-mode=oci-1-1")},
	{"cosign v3 attest", "sigstore-bundle", anyAttestation, cosignWithKey("cosign", "attest")},
	{"cosign v2 attest", "dsse", anyAttestation, cosignWithKey("cosign2", "attest")},
	{"notation JWS", "notation", anySignature, vendorWith(notationtest.JWS)},
	{"notation COSE", "notation", anySignature, vendorWith(notationtest.COSE)},
	{"keyless bundle", "sigstore-bundle", anySignature, keyless(func(t *testing.T, s *sigstoretest.Sigstore, image ruled) {
		referBundle(t, image.reg, image.Descriptor, sigstoretest.SignPredicateType, s.Signature(t, image.Digest, ciIdentity, ciIssuer))
	})},
	{"keyless tag", "cosign-signature", anySignature, keyless(func(t *testing.T, s *sigstoretest.Sigstore, image ruled) {
		tagLayers(t, image.reg, image.Digest, ".sig", s.CosignSignature(t, image.reg.Host+"/app", image.Digest, ciIdentity, ciIssuer))
	})},
	{"keyless attestation", "sigstore-bundle", anyAttestation, keyless(func(t *testing.T, s *sigstoretest.Sigstore, image ruled) {
		referBundle(t, image.reg, image.Descriptor, spdxPredicate, s.Attestation(t, "", image.Digest, ciIdentity, ciIssuer, spdxPredicate, map[string]any{}))
	})},
	{"keyless attestation tag", "dsse", anyAttestation, keyless(func(t *testing.T, s *sigstoretest.Sigstore, image ruled) {
		tagLayers(t, image.reg, image.Digest, ".att", s.CosignAttestation(t, "", image.Digest, ciIdentity, ciIssuer, spdxPredicate, map[string]any{}))
	})},
	{"keyless attestation, OCI 1.1", "dsse", anyAttestation, keyless(func(t *testing.T, s *sigstoretest.Sigstore, image ruled) {
		refer(t, image.reg, image.Descriptor, ocispec.Manifest{ArtifactType: artifact.TypeCosignAttestation},
			s.CosignAttestation(t, "", image.Digest, ciIdentity, ciIssuer, spdxPredicate, map[string]any{}))
	})},
}

// keyless signs by an instance of sigstore that the test makes: a stranger's is another.
func keyless(sign func(*testing.T, *sigstoretest.Sigstore, ruled)) func(*testing.T) signer {
	return func(t *testing.T) signer {
		s := sigstoretest.New(t)
		return signer{trustedCI(t, "signer", s), ciIdentity + " (issuer " + ciIssuer + ")", func(t *testing.T, image ruled) { sign(t, s, image) }}
	}
}

// cosignWithKey signs, or attests an SBOM, with a key pair of the tool's own.
func cosignWithKey(program, command string, flags ...string) func(*testing.T) signer {
	return func(t *testing.T) signer {
		dir := t.TempDir()
		t.Setenv("COSIGN_PASSWORD", "")
		t.Setenv("COSIGN_EXPERIMENTAL", "1") // of version 2, for referrers
		tool(t, dir, program, "generate-key-pair")
		public, err := os.ReadFile(filepath.Join(dir, "cosign.pub"))
		if err != nil {
			t.Fatal(err)
		}
		return signer{trustedKeys(t, "signer", public), keyIdentity(t, public), func(t *testing.T, image ruled) {
			if command == "sign" {
				cosign(t, dir, program, image.reference(), append([]string{command}, flags...)...)
				return
			}
			cosignAttest(t, dir, program, image.reference(), "spdxjson", `{"spdxVersion":"SPDX-2.3"}`)
		}}
	}
}

// cosign runs a command of cosign with the key pair in dir, without a log.
func cosign(t *testing.T, dir, program, reference string, command ...string) {
	t.Helper()
	args := append(command, "--key", "cosign.key", "--tlog-upload=false", "-y", "--allow-insecure-registry")
	if program == "cosign" {
		args = append(args, "--use-signing-config=false")
	}
	tool(t, dir, program, append(args, reference)...)
}

func cosignAttest(t *testing.T, dir, program, reference, kind, predicate string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "predicate.json"), []byte(predicate), 0o600); err != nil {
		t.Fatal(err)
	}
	cosign(t, dir, program, reference, "attest", "--type", kind, "--predicate", "predicate.json")
}

// keyIdentity is the name of a public key among identities.
func keyIdentity(t *testing.T, public []byte) string {
	t.Helper()
	block, _ := pem.Decode(public)
	if block == nil {
		t.Fatalf("no PEM: %s", public)
	}
	return fmt.Sprintf("key sha256:%x", sha256.Sum256(block.Bytes))
}

func vendorWith(mediaType string) func(*testing.T) signer {
	return func(t *testing.T) signer {
		s := newVendor(t)
		return signer{trustedVendor(t, "signer", s), notationtest.Identity, func(t *testing.T, image ruled) {
			referEnvelope(t, image.reg, image.Descriptor, mediaType, s)
		}}
	}
}

// What each producer signs is verified at the pull and from the store, with the referrers API
// and without; an image that is not signed, or by a stranger in the same way, is refused
// before its layers.
func TestProducersAreVerified(t *testing.T) {
	for _, kind := range []registry.Kind{registry.Olareg, registry.Distribution} {
		for _, p := range producers {
			t.Run(string(kind)+" "+p.name, func(t *testing.T) {
				reg := startRegistry(t, kind)
				signed, foreign, unsigned := pushRuled(t, reg, "signed"), pushRuled(t, reg, "foreign"), pushRuled(t, reg, "unsigned")
				s, stranger := p.signer(t), p.signer(t)
				s.sign(t, signed)
				stranger.sign(t, foreign)
				d := startDaemon(t, enforced(s.trust, p.entry))
				unsigned.refused(t, d, "nothing of the kind refers to it")
				foreign.refused(t, d, p.format+" sha256:", "trust signer: ")
				signed.verified(t, d, "counted "+p.format, "signed by "+s.identity)
			})
		}
	}
}
