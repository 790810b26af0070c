package sigstore

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

func replaced(text []byte, pairs ...string) []byte {
	return []byte(strings.NewReplacer(pairs...).Replace(string(text)))
}

// V3, CVE-2026-39395, and of V21: duplicate JSON keys. All of them are signed by the key.
func TestSignedPayloadThatCannotBeReadIsRefused(t *testing.T) {
	k := sigstoretest.NewKey(t)
	v := trustKeys(t, k.PEM)
	good := sigstoretest.Payload(t, repository, subject)
	accept(t, v, layerOf(k.SignedPayload(t, good)))
	accept(t, v, layerOf(k.SignedPayload(t, replaced(good, `"optional":null`, `"optional":{"creator":"x","timestamp":1}`))))
	other := fmt.Sprintf(`"docker-manifest-digest":"%s"`, sibling)
	same := fmt.Sprintf(`"docker-manifest-digest":"%s"`, subject)
	for name, row := range map[string]struct {
		payload []byte
		why     string
	}{
		"no JSON":            {[]byte("signed"), "cannot be read"},
		"empty":              {nil, "cannot be read"},
		"an array":           {[]byte("[]"), "instead of an object"},
		"truncated":          {good[:len(good)-1], "cannot be read"},
		"more behind":        {append(slices.Clone(good), "{}"...), "data after the end"},
		"nothing in it":      {[]byte("{}"), "critical.type"},
		"digest twice":       {replaced(good, same, same+","+other), "duplicate object member name"},
		"digest twice, turn": {replaced(good, same, other+","+same), "duplicate object member name"},
		"critical twice":     {replaced(good, `"optional":null`, `"critical":{}`), "duplicate object member name"},
		"in another case":    {replaced(good, `"critical"`, `"Critical"`), "is not spelt"},
		"digest in both":     {replaced(good, same, same+","+strings.ToUpper(other[:10])+other[10:]), "is not spelt"},
		"critical, unknown":  {replaced(good, `"type"`, `"unless":"x","type"`), "no such member"},
		"unknown":            {replaced(good, `"optional"`, `"unless"`), ""},
		"GPG's type":         {replaced(good, "cosign container image signature", "atomic container signature"), `the payload's critical.type is "atomic container signature"`},
		"digest no string":   {replaced(good, `"`+subject.String()+`"`, "1"), "instead of a string"},
		"invalid UTF-8":      {replaced(good, repository, "\xff"), "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			if row.why == "" { // beside what is critical, cosign may add something
				accept(t, v, layerOf(k.SignedPayload(t, row.payload)))
				return
			}
			reject(t, v, layerOf(k.SignedPayload(t, row.payload)), row.why)
		})
	}
}

// V3 and V21 for statements, in a bundle and in a layer.
func TestSignedStatementThatCannotBeReadIsRefused(t *testing.T) {
	k := sigstoretest.NewKey(t)
	v := trustKeys(t, k.PEM)
	good := sigstoretest.Statement(t, repository, subject, provenance, predicate)
	other := fmt.Sprintf(`"subject":[{"digest":{"sha256":"%s"}}]`, sibling.Encoded())
	for name, row := range map[string]struct {
		payload []byte
		why     string
	}{
		"good":               {good, ""},
		"spaced":             {replaced(good, `"predicate":`, "\"predicate\" :\n\t "), ""},
		"unknown member":     {replaced(good, `"predicate":`, `"since":1,"predicate":`), ""},
		"older":              {replaced(good, "Statement/v1", "Statement/v0.1"), ""},
		"no JSON":            {[]byte("statement"), "cannot be read"},
		"more behind":        {append(slices.Clone(good), '1'), "data after the end"},
		"subject twice":      {replaced(good, `"predicate":`, other+`,"predicate":`), "duplicate object member name"},
		"type twice":         {replaced(good, `"predicate":`, `"predicateType":"x","predicate":`), "duplicate object member name"},
		"in the predicate":   {replaced(good, `"builder":"b"`, `"builder":"b","builder":"c"`), "duplicate object member name"},
		"in another case":    {replaced(good, `"predicate":`, `"PredicateType":"x","predicate":`), "is not spelt"},
		"digest twice":       {replaced(good, `"sha256":`, fmt.Sprintf(`"sha256":%q,"sha256":`, sibling.Encoded())), "duplicate object member name"},
		"another algorithm":  {replaced(good, `"sha256":`, `"sha3-256":`), "none of the statement's 1 subjects"},
		"another type":       {replaced(good, "in-toto.io/Statement", "example.com/Statement"), "the statement is of type"},
		"no predicate type":  {replaced(good, provenance, ""), "no predicateType"},
		"no subject":         {replaced(good, `"subject":[{`, `"subject":[],"x":[{`), "none of the statement's 0 subjects"},
		"subject is null":    {replaced(good, `"subject":[{`, `"subject":null,"x":[{`), "instead of an array"},
		"digest is a number": {replaced(good, `"`+subject.Encoded()+`"`, "1"), "instead of a string"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range []evidence.Evidence{bundleOf(k.Bundle(t, row.payload)), layerOf(k.Envelope(t, row.payload))} {
				if row.why == "" {
					if got := accept(t, v, e); got.PredicateType != provenance || !json.Valid(got.Predicate) || got.Predicate[0] != '{' {
						t.Errorf("%+v", got)
					}
					continue
				}
				reject(t, v, e, row.why)
			}
		})
	}
}

// V5, CVE-2022-35929, -35930: what an annotation or a media type claims does not count.
func TestPredicateTypeIsTheSignedOne(t *testing.T) {
	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	byKey, byIdentity := trustKeys(t, k.PEM), trustCI(t, s.Root)
	const vuln = "https://cosign.sigstore.dev/attestation/vuln/v1"
	for name, e := range map[string]evidence.Evidence{
		"bundle":          bundleOf(k.Attestation(t, repository, subject, vuln, predicate)),
		"layer":           layerOf(k.CosignAttestation(t, repository, subject, vuln, predicate)),
		"keyless, bundle": bundleOf(s.Attestation(t, repository, subject, ci, tokens, vuln, predicate)),
		"keyless, layer":  layerOf(s.CosignAttestation(t, repository, subject, ci, tokens, vuln, predicate)),
	} {
		t.Run(name, func(t *testing.T) {
			v := byKey
			if strings.HasPrefix(name, "keyless") {
				v = byIdentity
			}
			e.MediaType = provenance
			for _, claimed := range []string{"predicateType", "in-toto.io/predicate-type", "dev.sigstore.bundle.predicateType"} {
				e = annotated(e, claimed, provenance)
			}
			if got := accept(t, v, e); got.PredicateType != vuln || got.Kind != evidence.Attestation {
				t.Errorf("%s of %s", got.Kind, got.PredicateType)
			}
		})
	}
}

// V21: the kind is told by what is signed, not by the format that the manifest claims.
func TestSignatureIsNeverAnAttestationAndTheReverse(t *testing.T) {
	k := sigstoretest.NewKey(t)
	v := trustKeys(t, k.PEM)
	for _, f := range keyForms(t, k, manifest) {
		if got := accept(t, v, f.e); got.Kind != f.kind || (got.Predicate != nil) != (f.kind == evidence.Attestation) {
			t.Errorf("%s: %+v", f.name, got)
		}
		for _, format := range []evidence.Format{evidence.Bundle, evidence.CosignSignature, evidence.DSSE} {
			if as := f.e; format != f.e.Format {
				as.Format = format
				reject(t, v, as, "")
			}
		}
	}
	// A statement of cosign's signatures is one in whatever form.
	layer := layerOf(k.CosignAttestation(t, repository, subject, signPredicateType, predicate))
	if got := accept(t, v, layer); got.Kind != evidence.Signature || got.Predicate != nil || got.PredicateType != "" {
		t.Errorf("%+v", got)
	}
	// A signature over the envelope's bytes is not one over what the envelope says.
	raw := k.CosignAttestation(t, repository, subject, provenance, predicate)
	raw.Annotations = k.SignedPayload(t, raw.Data).Annotations
	asSignature := layerOf(raw)
	asSignature.Format = evidence.CosignSignature
	reject(t, v, asSignature, `critical.type is ""`)
}

// V12, CVE-2026-31830, and of V21: a sibling's signature, a `.sig` of another digest.
func TestEvidenceAboutAnotherDigestIsRefused(t *testing.T) {
	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	byKey, byIdentity := trustKeys(t, k.PEM), trustCI(t, s.Root)
	why := map[string]string{
		"bundle-signature":   "none of the statement's 1 subjects is " + subject.String(),
		"bundle-attestation": "none of the statement's 1 subjects is " + subject.String(),
		"cosign-attestation": "none of the statement's 1 subjects is " + subject.String(),
		"cosign-signature":   "the payload is about",
		"bundle-message":     "artifact does not match digest",
	}
	for _, f := range keyForms(t, k, []byte("sibling")) {
		reject(t, byKey, f.e, why[f.name])
		f.e.Subject.Digest = sibling
		accept(t, byKey, f.e)
	}
	for _, f := range identityForms(t, s, []byte("sibling"), ci, tokens) {
		reject(t, byIdentity, f.e, why[f.name])
		f.e.Subject.Digest = sibling
		accept(t, byIdentity, f.e)
	}
	// The digest of a message signature is a hint that nobody signs.
	reject(t, byKey, edited(t, k.MessageSignature(t, []byte("sibling")), func(pb *protobundle.Bundle) {
		pb.GetMessageSignature().MessageDigest = proto(t, k.MessageSignature(t, manifest)).GetMessageSignature().MessageDigest
	}), "another key signed it, or other content")
}

// V20, GHSA-r2xv-vpr2-42m9.
func TestTamperedPayloadIsRefused(t *testing.T) {
	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	byKey, byIdentity := trustKeys(t, k.PEM), trustCI(t, s.Root)
	tamper := func(e evidence.Evidence) evidence.Evidence {
		if e.Format == evidence.Bundle {
			return edited(t, e.Data, func(pb *protobundle.Bundle) {
				payload := replaced(pb.GetDsseEnvelope().GetPayload(), `"builder":"b"`, `"builder":"c"`, signPredicateType, provenance)
				if bytes.Equal(payload, pb.GetDsseEnvelope().GetPayload()) {
					t.Fatal("nothing is tampered with")
				}
				pb.GetDsseEnvelope().Payload = payload
			})
		}
		if e.Format == evidence.DSSE {
			old := base64.StdEncoding.EncodeToString(sigstoretest.Statement(t, repository, subject, provenance, predicate))
			with := base64.StdEncoding.EncodeToString(sigstoretest.Statement(t, repository, subject, provenance, 1))
			e.Data = replaced(e.Data, old, with)
			return e
		}
		e.Data = replaced(e.Data, repository, "registry.example.com/other")
		return e
	}
	for _, f := range keyForms(t, k, manifest) {
		if accept(t, byKey, f.e); f.name != "bundle-message" {
			reject(t, byKey, tamper(f.e), "none of the trust's 1 keys verifies it")
		}
	}
	for _, f := range identityForms(t, s, manifest, ci, tokens) {
		if accept(t, byIdentity, f.e); f.name != "bundle-message" {
			reject(t, byIdentity, tamper(f.e), "the trusted root does not vouch for it")
		}
	}
	// The payload type is signed with the payload.
	reject(t, byKey, edited(t, k.Signature(t, subject), func(pb *protobundle.Bundle) { pb.GetDsseEnvelope().PayloadType += "x" }), "another key signed it, or other content")
}

// V21, wrong key hint: it comes from the network, and neither helps nor harms.
func TestHintOfABundleIsNotLookedAt(t *testing.T) {
	a, b := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	v := trustKeys(t, a.PEM)
	hinted := func(by *sigstoretest.Key, hint string) evidence.Evidence {
		return edited(t, by.Signature(t, subject), func(pb *protobundle.Bundle) {
			pb.VerificationMaterial.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: hint}}
		})
	}
	for _, hint := range []string{a.Hint, b.Hint, "", v.Facts().Names[0]} {
		accept(t, v, hinted(a, hint))
		reject(t, v, hinted(b, hint), "none of the trust's 1 keys")
	}
	if got := accept(t, trustKeys(t, b.PEM, a.PEM), hinted(a, b.Hint)); got.Identity != v.Facts().Names[0] {
		t.Errorf("signed by %s", got.Identity)
	}
}

// V21, a certificate for a key rule: even one whose key is the trusted one is a certificate.
func TestCertificateIsNoKey(t *testing.T) {
	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	v := trustKeys(t, k.PEM)
	for _, f := range identityForms(t, s, manifest, ci, tokens) {
		why := "signed with a certificate, and this trust has keys"
		if f.e.Format != evidence.Bundle {
			why = "none of the trust's 1 keys"
		}
		reject(t, v, f.e, why)
		accept(t, trustCI(t, s.Root), f.e)
	}
	// Log entries neither help nor harm a key.
	logged := func(by *sigstoretest.Key) evidence.Evidence {
		return edited(t, by.Signature(t, subject), func(pb *protobundle.Bundle) {
			pb.VerificationMaterial.TlogEntries = proto(t, s.Signature(t, subject, ci, tokens)).VerificationMaterial.TlogEntries
		})
	}
	accept(t, v, logged(k))
	reject(t, v, logged(sigstoretest.NewKey(t)), "none of the trust's 1 keys")
}

// V21, sha512: statements and payloads name it; a signature over the digest needs a key that
// hashes with SHA-512.
func TestSubjectOfSHA512(t *testing.T) {
	long := digest.SHA512.FromBytes(manifest)
	of := func(e evidence.Evidence) evidence.Evidence {
		e.Subject.Digest = long
		return e
	}
	for name, k := range signers(t) {
		v := trustKeys(t, k.PEM)
		for _, e := range []evidence.Evidence{
			of(bundleOf(k.Signature(t, long))),
			of(bundleOf(k.Attestation(t, repository, long, provenance, predicate))),
			of(layerOf(k.CosignSignature(t, repository, long))),
			of(layerOf(k.CosignAttestation(t, repository, long, provenance, predicate))),
		} {
			accept(t, v, e)
			e.Subject.Digest = digest.SHA512.FromString("sibling")
			reject(t, v, e, "about")
		}
		message := edited(t, k.MessageSignature(t, manifest), func(pb *protobundle.Bundle) {
			sum := digest.SHA512.Hash()
			sum.Write(manifest)
			pb.GetMessageSignature().MessageDigest = &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_512, Digest: sum.Sum(nil)}
		})
		if name == "P-521" {
			accept(t, v, of(message))
		} else {
			reject(t, v, of(message), "")
		}
	}
	for _, bad := range []digest.Digest{"", "sha256:ab", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		k := sigstoretest.NewKey(t)
		e := bundleOf(k.MessageSignature(t, manifest))
		e.Subject.Digest = bad
		reject(t, trustKeys(t, k.PEM), e, "name it by sha256 or sha512")
	}
}

// With a digest alone, sigstore-go would take an Ed25519 signature of nothing for one of
// whatever the bundle claims.
func TestSignatureOfNothingSignsNothing(t *testing.T) {
	for name, k := range signers(t) {
		v := trustKeys(t, k.PEM)
		e := edited(t, k.MessageSignature(t, manifest), func(pb *protobundle.Bundle) {
			if private, ok := k.Private.(ed25519.PrivateKey); ok {
				pb.GetMessageSignature().Signature = ed25519.Sign(private, nil)
			} else {
				pb.GetMessageSignature().Signature = k.Sign(t, nil)
			}
		})
		if _, err := v.Verify(t.Context(), e); err == nil {
			t.Errorf("%s: it is accepted", name)
		}
		accept(t, v, bundleOf(k.Signature(t, subject)))
	}
}

// V7, CVE-2024-45395, CVE-2023-33957: what is bounded is refused with its number, and just
// within the bound it is accepted.
func TestMassesAreRefusedWithTheNumber(t *testing.T) {
	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	byKey, byIdentity := trustKeys(t, k.PEM), trustCI(t, s.Root)
	good := s.Signature(t, subject, ci, tokens)
	entries := func(n int) evidence.Evidence {
		return edited(t, good, func(pb *protobundle.Bundle) {
			first := pb.VerificationMaterial.TlogEntries[0]
			for i := 1; i < n; i++ {
				pb.VerificationMaterial.TlogEntries = append(pb.VerificationMaterial.TlogEntries,
					s.Log(t, first.GetCanonicalizedBody(), first.GetLogIndex()+int64(i), first.GetIntegratedTime()))
			}
		})
	}
	accept(t, byIdentity, entries(maxEntries))
	reject(t, byIdentity, entries(maxEntries+1), "log entries: 9, more than 8")

	timestamps := func(n int) evidence.Evidence {
		return edited(t, good, func(pb *protobundle.Bundle) {
			data := pb.VerificationMaterial.TimestampVerificationData
			data.Rfc3161Timestamps = slices.Repeat(data.Rfc3161Timestamps, n)
		})
	}
	accept(t, byIdentity, timestamps(maxEntries))
	reject(t, byIdentity, timestamps(maxEntries+1), "timestamps: 9, more than 8")

	long := func(n int) evidence.Evidence {
		return edited(t, good, func(pb *protobundle.Bundle) {
			data := pb.VerificationMaterial.TimestampVerificationData
			data.Rfc3161Timestamps = append(data.Rfc3161Timestamps, &protocommon.RFC3161SignedTimestamp{SignedTimestamp: bytes.Repeat([]byte{0x30, 0x80}, n/2)})
		})
	}
	accept(t, byIdentity, long(maxTimestamp)) // beside one that is valid
	reject(t, byIdentity, long(maxTimestamp+2), "bytes of a timestamp: 16386, more than 16384")

	chain := func(n int) evidence.Evidence {
		return edited(t, good, func(pb *protobundle.Bundle) {
			pb.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.2"
			one := &protocommon.X509Certificate{RawBytes: pb.VerificationMaterial.GetCertificate().GetRawBytes()}
			pb.VerificationMaterial.Content = &protobundle.VerificationMaterial_X509CertificateChain{
				X509CertificateChain: &protocommon.X509CertificateChain{Certificates: slices.Repeat([]*protocommon.X509Certificate{one}, n)},
			}
		})
	}
	accept(t, byIdentity, chain(maxCertificates))
	reject(t, byIdentity, chain(maxCertificates+1), "certificates in the chain: 9, more than 8")

	two := edited(t, k.Signature(t, subject), func(pb *protobundle.Bundle) {
		pb.GetDsseEnvelope().Signatures = append(pb.GetDsseEnvelope().Signatures, &protodsse.Signature{Sig: []byte("x")})
	})
	reject(t, byKey, two, "signatures in the envelope: 2, more than 1")
	layer := layerOf(k.CosignAttestation(t, repository, subject, provenance, predicate))
	accept(t, byKey, layer)
	layer.Data = replaced(layer.Data, `"signatures":[`, `"signatures":[{"sig":"eA=="},`)
	reject(t, byKey, layer, "signatures in the envelope: 2, more than 1")
	layer.Data = replaced(layer.Data, `"signatures":[`, `"signatures":[],"x":[`)
	reject(t, byKey, layer, "the envelope has no signature")
}

func TestMassesWithinAStatementAreRefusedWithTheNumber(t *testing.T) {
	k := sigstoretest.NewKey(t)
	v := trustKeys(t, k.PEM)
	good := sigstoretest.Statement(t, repository, subject, provenance, predicate)
	both := func(payload []byte, why string) {
		t.Helper()
		for _, e := range []evidence.Evidence{bundleOf(k.Bundle(t, payload)), layerOf(k.Envelope(t, payload))} {
			if why == "" {
				accept(t, v, e)
			} else {
				reject(t, v, e, why)
			}
		}
	}
	subjects := func(n int) []byte {
		return replaced(good, `"subject":[`, `"subject":[`+strings.Repeat(`{"digest":{"sha256":"ab"}},`, n-1))
	}
	both(subjects(maxSubjects), "")
	both(subjects(maxSubjects+76), "1100, more than 1024")
	digests := func(n int) []byte {
		var others strings.Builder
		for i := range n - 1 {
			fmt.Fprintf(&others, `"a%d":"ab",`, i)
		}
		return replaced(good, `"digest":{`, `"digest":{`+others.String())
	}
	both(digests(maxDigests), "")
	both(digests(maxDigests+1), "more than 32 digests")
	wide := func(n int) []byte {
		var names strings.Builder
		for i := range n - 2 {
			fmt.Fprintf(&names, `"%d":0,`, i)
		}
		return replaced(good, `"builder"`, names.String()+`"builder"`)
	}
	both(wide(maxMembers), "")
	nested := func(levels, each int) []byte {
		var before strings.Builder
		for range levels {
			for i := range each - 1 {
				fmt.Fprintf(&before, `"%d":0,`, i)
			}
			before.WriteString(`"in":{`)
		}
		return replaced(good, `"builder":"b"`, before.String()+`"builder":"b"`+strings.Repeat("}", levels))
	}
	both(nested(8, maxMembers/8-1), "")
	both(nested(8, maxMembers/8+1), "objects of more than 65536 members")
	both(wide(maxMembers+1), "objects of more than 65536 members")
	both(replaced(good, repository, strings.Repeat("a", maxText)), "")
	both(replaced(good, repository, strings.Repeat("a", maxText+1)), "2049 bytes, more than 2048")
}

func TestMassesBesideThePayloadAreRefused(t *testing.T) {
	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	byKey, byIdentity := trustKeys(t, k.PEM), trustCI(t, s.Root)
	good := k.Signature(t, subject)
	hinted := func(n int) evidence.Evidence {
		return bundleOf(replaced(good, k.Hint, strings.Repeat("A", n)))
	}
	accept(t, byKey, hinted(maxFrame-4096))
	reject(t, byKey, hinted(maxFrame), "bytes of the bundle beside its payload: 26")

	many := bundleOf(replaced(good, `"verificationMaterial":{`, `"verificationMaterial":{"tlogEntries":[`+strings.Repeat("{},", maxTokens)+`{}],`))
	reject(t, byKey, many, "more than 4096 JSON tokens")

	big := bundleOf(append(slices.Clone(good), bytes.Repeat([]byte(" "), evidence.MaxSize)...))
	reject(t, byKey, big, "more than 6291456")

	for _, key := range []string{"dev.sigstore.cosign/bundle", "dev.sigstore.cosign/certificate", "dev.cosignproject.cosign/signature"} {
		layer := layerOf(s.CosignSignature(t, repository, subject, ci, tokens))
		accept(t, byIdentity, layer)
		reject(t, byIdentity, annotated(layer, key, strings.Repeat(" ", maxAnnotations)+layer.Annotations[key]), "bytes of cosign's annotations: 13")
	}
}

// V21: a bundle whose JSON has a name twice.
func TestNameTwiceInABundleIsRefused(t *testing.T) {
	k := sigstoretest.NewKey(t)
	v := trustKeys(t, k.PEM)
	good := k.Signature(t, subject)
	accept(t, v, bundleOf(good))
	other := k.Signature(t, sibling)
	for name, data := range map[string][]byte{
		"mediaType": replaced(good, `"mediaType":`, `"mediaType":"x","mediaType":`),
		"content":   append(append(slices.Clone(good[:len(good)-1]), ','), bytes.TrimPrefix(other, []byte("{"))...),
		"both ways": replaced(good, `"mediaType":`, `"media_type":"x","mediaType":`),
		"unknown":   replaced(good, `"mediaType":`, `"x":1,"mediaType":`),
		"behind":    append(slices.Clone(good), other...),
	} {
		t.Run(name, func(t *testing.T) { reject(t, v, bundleOf(data), "cannot be read") })
	}
	layer := layerOf(k.CosignAttestation(t, repository, subject, provenance, predicate))
	accept(t, v, layer)
	twice := layer
	twice.Data = replaced(layer.Data, `"payloadType":`, `"payloadType":"x","payloadType":`)
	reject(t, v, twice, "duplicate object member name")
	twice.Data = replaced(layer.Data, `"payloadType":`, `"PayloadType":"x","payloadType":`)
	reject(t, v, twice, "is not spelt")
}

// What the network says is cut and quoted before it stands in an error.
func TestTextOfTheNetworkIsCutAndQuoted(t *testing.T) {
	k := sigstoretest.NewKey(t)
	v := trustKeys(t, k.PEM)
	nasty := "\x1b[2J\n" + strings.Repeat("A", 1900)
	quoted, err := json.Marshal(nasty)
	if err != nil {
		t.Fatal(err)
	}
	good := sigstoretest.Payload(t, repository, subject)
	statement := sigstoretest.Statement(t, repository, subject, provenance, predicate)
	for _, e := range []evidence.Evidence{
		layerOf(k.SignedPayload(t, replaced(good, `"cosign container image signature"`, string(quoted)))),
		layerOf(k.SignedPayload(t, replaced(good, `"`+subject.String()+`"`, string(quoted)))),
		bundleOf(k.Bundle(t, replaced(statement, `"https://in-toto.io/Statement/v1"`, string(quoted)))),
		bundleOf(k.Bundle(t, replaced(statement, `"digest"`, string(quoted)+`:1,"digest":1,"Digest"`))),
		bundleOf(replaced(k.Signature(t, subject), sigstoretest.BundleMediaType, string(quoted[1:len(quoted)-1]))),
	} {
		_, err := v.Verify(t.Context(), e)
		if err == nil || len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%v", err)
		}
	}
}
