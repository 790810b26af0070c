package integration

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// predicate is a document that producers attest, a condition that holds of it, and its twin
// that does not.
type predicate struct {
	name, kind    string // kind is what cosign attest --type takes
	predicateType string
	document      func(t *testing.T, dir string) string
	holds, fails  string
}

const slsa1 = "https://slsa.dev/provenance/v1"

var predicates = []predicate{
	{
		"SLSA provenance v0.2", "slsaprovenance", "https://slsa.dev/provenance/v0.2", slsa02Document,
		`{ path = "/invocation/configSource/uri", matches = 'https://git\.example\.com/org/app#refs/tags/v\d+' }`,
		`{ path = "/invocation/configSource/uri", matches = 'https://git\.example\.com/org/app' }`,
	},
	{
		"SLSA provenance v1", "slsaprovenance1", slsa1, slsa1Document,
		`{ path = "/runDetails/builder/id", one_of = ["https://builder.example.com/v0", "` + trustedBuilder + `"] }`,
		`{ path = "/runDetails/builder/id", one_of = ["https://builder.example.com/v0"] }`,
	},
	{
		"SPDX", "spdxjson", spdxPredicate, spdxDocument,
		`{ path = "/creationInfo/creators", contains = "Tool: builder-1.0" }`,
		`{ path = "/creationInfo/creators", contains = "Tool: trivy-1.0" }`,
	},
	{
		"CycloneDX", "cyclonedx", "https://cyclonedx.org/bom", billOfCtr,
		`{ path = "/version", at_least = 1, at_most = 1 }, { path = "/components/0/purl", matches = 'pkg:golang/.+' }`,
		`{ path = "/version", at_least = 2 }`,
	},
	{
		"VEX", "https://openvex.dev/ns/v0.2.0", "https://openvex.dev/ns/v0.2.0", vexDocument,
		`{ path = "/statements/0/status", equals = "not_affected" }, { path = "/statements/1", exists = false }`,
		`{ path = "/statements/0/status", equals = "fixed" }`,
	},
	{
		"VSA", "https://slsa.dev/verification_summary/v1", "https://slsa.dev/verification_summary/v1", vsaDocument,
		`{ path = "/verificationResult", equals = "PASSED" }, { path = "/verifiedLevels", contains = "SLSA_BUILD_LEVEL_3" }`,
		`{ path = "/verificationResult", equals = "PASSED" }, { path = "/verifiedLevels", contains = "SLSA_BUILD_LEVEL_4" }`,
	},
}

// What cosign attests is held against the rule's conditions, on the predicate that it signed.
func TestAttestationsMeetConditions(t *testing.T) {
	reg := startRegistry(t, registry.Olareg)
	for _, p := range predicates {
		t.Run(p.name, func(t *testing.T) {
			image := pushRuled(t, reg, digest.FromString(p.name).Encoded()[:12])
			dir := t.TempDir()
			t.Setenv("COSIGN_PASSWORD", "")
			tool(t, dir, "cosign", "generate-key-pair")
			cosignAttest(t, dir, "cosign", image.reference(), p.kind, p.document(t, dir))
			trusts := trustOf("ci", `keys = ["`+dir+`/cosign.pub"]`)
			entry := func(where string) string {
				return attestedBy(`predicate_type = "`+p.predicateType+`"`, `by = ["ci"]`, "where = ["+where+"]")
			}
			image.refused(t, startDaemon(t, enforced(trusts, entry(p.fails))), "needs an attestation "+p.predicateType, "of its predicate is ")
			image.verified(t, startDaemon(t, enforced(trusts, entry(p.holds))), "has an attestation "+p.predicateType)
		})
	}
}

// An image counts as attested by nothing but an attestation of the type, about itself, by
// whom the rule names.
func TestWronglyAttestedIsRefused(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	provenance := map[string]any{"runDetails": map[string]any{"builder": map[string]any{"id": "https://builder.example.com/v1"}}}
	reg := startRegistry(t, registry.Olareg)
	other := pushRuled(t, reg, "other")
	attest := func(k *sigstoretest.Key, subject digest.Digest, predicateType string, predicate any) func(*testing.T, ruled) {
		return func(t *testing.T, image ruled) {
			if subject == "" {
				subject = image.Digest
			}
			// The manifest says what the rule asks for, whatever is signed.
			referBundle(t, reg, image.Descriptor, slsa1, k.Attestation(t, "", subject, predicateType, predicate))
		}
	}
	trusts := trustedKeys(t, "ci", key.PEM)
	entry := attestedBy(`predicate_type = "`+slsa1+`"`, `by = ["ci"]`, `where = [{ path = "/runDetails/builder/id", equals = "https://builder.example.com/v1" }]`)
	for tag, tc := range map[string]struct {
		attest func(*testing.T, ruled)
		says   string
	}{
		"stranger":  {attest(stranger, "", slsa1, provenance), "none of the trust's 1 keys verifies it"},
		"about":     {attest(key, other.Digest, slsa1, provenance), "it is about something else"},
		"type":      {attest(key, "", "https://slsa.dev/provenance/v0.2", provenance), `its predicate type is "https://slsa.dev/provenance/v0.2"`},
		"predicate": {attest(key, "", slsa1, map[string]any{}), `"/runDetails/builder/id" of its predicate is missing`},
		"signature": {func(t *testing.T, image ruled) { signBundle(t, image, key) }, "none counts"},
	} {
		t.Run(tag, func(t *testing.T) {
			image := pushRuled(t, reg, tag)
			tc.attest(t, image)
			d := startDaemon(t, enforced(trusts, entry))
			image.refused(t, d, tc.says)
			attest(key, image.Digest, slsa1, provenance)(t, image)
			image.verified(t, d)
		})
	}
}

// An attestation signs nothing, whoever made it.
func TestAttestationIsNoSignature(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	referBundle(t, reg, image.Descriptor, slsa1, key.Attestation(t, "", image.Digest, slsa1, map[string]any{}))
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	image.refused(t, d, "needs a signature by ci")
	signBundle(t, image, key)
	image.verified(t, d)
}

// built is an image as BuildKit pushes it: an index of its manifest and of an attestation
// manifest, whose statement nobody signed.
type built struct {
	ruled
	manifest, attestation ocispec.Descriptor
}

// pushBuiltBy puts one whose statement says which builder made the manifest about.
func pushBuiltBy(t *testing.T, reg *registry.Registry, tag, builder string, about func(manifest digest.Digest) digest.Digest) built {
	t.Helper()
	image := pushSmall(t, reg, "app", "", t.Name())
	statement := sigstoretest.Statement(t, "app", about(image.Digest), slsa1, map[string]any{"runDetails": map[string]any{"builder": map[string]any{"id": builder}}})
	config := `{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["` + digest.FromBytes(statement).String() + `"]}}`
	pushBlob(t, reg, []byte(config))
	attestation := pushLayered(t, reg, "", ocispec.Manifest{Config: described(ocispec.MediaTypeImageConfig, config)}, sigstoretest.Layer{
		MediaType: "application/vnd.in-toto+json", Data: statement,
		Annotations: map[string]string{"in-toto.io/predicate-type": slsa1},
	})
	embedded := attestation
	embedded.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	embedded.Annotations = map[string]string{
		"vnd.docker.reference.type":   "attestation-manifest",
		"vnd.docker.reference.digest": image.Digest.String(),
	}
	index := put(t, reg, tag, ocispec.MediaTypeImageIndex, imageIndex(nil, image.Descriptor, embedded))
	return built{ruled{index, reg, reg.Host + "/app:" + tag, image.content[1:]}, image.Descriptor, attestation}
}

func manifestItself(manifest digest.Digest) digest.Digest { return manifest }

// BuildKit's statements count where who signed their manifest is whom the entry names: as a
// referrer of it, or under cosign's tag.
func TestBuildKitStatementsCountWhereSigned(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	trusts := trustedKeys(t, "ci", key.PEM)
	entry := attestedBy(`predicate_type = "`+slsa1+`"`, `by = ["ci"]`, `where = [{ path = "/runDetails/builder/id", equals = "https://builder.example.com/v1" }]`)
	another := func(digest.Digest) digest.Digest { return digest.FromString("another") }
	bundle := func(t *testing.T, b built, k *sigstoretest.Key) {
		referBundle(t, b.reg, b.attestation, sigstoretest.SignPredicateType, k.Signature(t, b.attestation.Digest))
	}
	tag := func(t *testing.T, b built, k *sigstoretest.Key) {
		tagLayers(t, b.reg, b.attestation.Digest, ".sig", k.CosignSignature(t, b.reg.Host+"/app", b.attestation.Digest))
	}
	image := func(t *testing.T, b built, k *sigstoretest.Key) { signBundle(t, b.ruled, k) }
	for _, tc := range []struct {
		name, builder string
		about         func(digest.Digest) digest.Digest
		sign          func(*testing.T, built, *sigstoretest.Key)
		by            *sigstoretest.Key
		says          string // "" where it counts
	}{
		{"by a referrer", "https://builder.example.com/v1", manifestItself, bundle, key, ""},
		{"by a tag", "https://builder.example.com/v1", manifestItself, tag, key, ""},
		{"by nobody", "https://builder.example.com/v1", manifestItself, nil, nil, "it is not signed"},
		{"by a stranger's referrer", "https://builder.example.com/v1", manifestItself, bundle, stranger, "it is not signed"},
		{"by a stranger's tag", "https://builder.example.com/v1", manifestItself, tag, stranger, "it is not signed"},
		{"the image alone", "https://builder.example.com/v1", manifestItself, image, key, "it is not signed"},
		{"about another", "https://builder.example.com/v1", another, bundle, key, "another subject"},
		{"of another builder", "https://builder.example.org/v1", manifestItself, bundle, key, `"https://builder.example.org/v1"`},
	} {
		for _, kind := range []registry.Kind{registry.Olareg, registry.Distribution} {
			t.Run(tc.name+" "+string(kind), func(t *testing.T) {
				b := pushBuiltBy(t, startRegistry(t, kind), "v1", tc.builder, tc.about)
				if tc.sign != nil {
					tc.sign(t, b, tc.by)
				}
				d := startDaemon(t, enforced(trusts, entry))
				if tc.says != "" {
					b.refused(t, d, tc.says)
					return
				}
				b.verified(t, d, "counted statement "+b.attestation.Digest.String(), "signed by "+keyIdentity(t, key.PEM))
			})
		}
	}
}
