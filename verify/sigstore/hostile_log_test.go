package sigstore

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

const proofAnnotation = "dev.sigstore.cosign/bundle"

// rebody changes a log entry's body, and lets the log sign it again as what it is now.
func rebody(tb testing.TB, s *sigstoretest.Sigstore, entry *protorekor.TransparencyLogEntry, old, with string) *protorekor.TransparencyLogEntry {
	tb.Helper()
	body := bytes.Replace(entry.GetCanonicalizedBody(), []byte(old), []byte(with), 1)
	if bytes.Equal(body, entry.GetCanonicalizedBody()) {
		tb.Fatalf("%s has no %s", body, old)
	}
	return s.Log(tb, body, entry.GetLogIndex(), entry.GetIntegratedTime())
}

// V1, CVE-2026-22703.
func TestLogEntryOfAnotherArtifactIsRefused(t *testing.T) {
	s := sigstoretest.New(t)
	v := trustCI(t, s.Root)
	other := identityForms(t, s, []byte("other"), ci, tokens)
	for i, f := range identityForms(t, s, manifest, ci, tokens) {
		t.Run(f.name, func(t *testing.T) {
			accept(t, v, f.e)
			if f.e.Format != evidence.Bundle {
				reject(t, v, annotated(f.e, proofAnnotation, other[i].e.Annotations[proofAnnotation]), "transparency log signature does not match")
				return
			}
			reject(t, v, edited(t, f.e.Data, func(pb *protobundle.Bundle) {
				pb.VerificationMaterial.TlogEntries = proto(t, other[i].e.Data).VerificationMaterial.TlogEntries
			}), "transparency log signature does not match")
		})
	}
}

// V1: the entry has the bundle's signature and certificate, and another digest.
func TestLogEntryOfAnotherDigestIsRefused(t *testing.T) {
	s := sigstoretest.New(t)
	v := trustCI(t, s.Root)
	for _, row := range []struct {
		name string
		data []byte
		hash string
		why  string
	}{
		// Rekor's own type compares the digest with the signature that it holds.
		{"message", s.MessageSignature(t, manifest, ci, tokens), subject.Encoded(), "entry body is not a recognizable Rekor v1 or Rekor v2 type: verifying signature"},
		{"envelope", s.Signature(t, subject, ci, tokens), "", "does not match envelope payload hash"},
	} {
		t.Run(row.name, func(t *testing.T) {
			accept(t, v, bundleOf(row.data))
			reject(t, v, edited(t, row.data, func(pb *protobundle.Bundle) {
				entry := pb.VerificationMaterial.TlogEntries[0]
				hash := row.hash
				if hash == "" {
					var body struct {
						Spec struct{ PayloadHash struct{ Value string } }
					}
					if err := json.Unmarshal(entry.GetCanonicalizedBody(), &body); err != nil {
						t.Fatal(err)
					}
					hash = body.Spec.PayloadHash.Value
				}
				pb.VerificationMaterial.TlogEntries[0] = rebody(t, s, entry, hash, sibling.Encoded())
			}), row.why)
		})
	}
}

// V2, GHSA-fx35-mq7g-6g98.
func TestBareKeyWhereTheCertificateBelongsIsRefused(t *testing.T) {
	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	v := trustCI(t, s.Root)
	der := spki(t, k.Private.Public())
	good := s.Signature(t, subject, ci, tokens)
	accept(t, v, bundleOf(good))
	certificate := func(raw []byte) func(*protobundle.Bundle) {
		return func(pb *protobundle.Bundle) {
			signedByKey := proto(t, k.Signature(t, subject))
			pb.Content = signedByKey.Content
			pb.VerificationMaterial.Content = &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: raw}}
		}
	}
	self, _ := pem.Decode(sigstoretest.SelfSigned(t, k.Private, ci, tokens))
	reject(t, v, edited(t, good, certificate(der)), "certificate cannot be read")
	reject(t, v, edited(t, good, certificate(self.Bytes)), "does not vouch")
	reject(t, v, bundleOf(k.Signature(t, subject)), "signed with a key, and this trust has identities")
	reject(t, v, edited(t, good, func(pb *protobundle.Bundle) {
		pb.Content = proto(t, k.Signature(t, subject)).Content
		pb.VerificationMaterial.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: k.Hint}}
	}), "signed with a key, and this trust has identities")

	layer := layerOf(s.CosignSignature(t, repository, subject, ci, tokens))
	accept(t, v, layer)
	byKey := layerOf(k.CosignSignature(t, repository, subject))
	for _, row := range []struct{ pem, why string }{
		{string(k.PEM), "is not one PEM certificate"},
		{string(block("CERTIFICATE", der)), "certificate cannot be read"},
		{string(pem.EncodeToMemory(self)), "does not vouch"},
		{"", "it has no certificate"},
	} {
		forged := annotated(annotated(byKey, "dev.sigstore.cosign/certificate", row.pem), proofAnnotation, layer.Annotations[proofAnnotation])
		reject(t, v, forged, row.why)
	}
}

// V4, CVE-2022-36056.
func TestInvalidOrMissingLogEntryIsRefused(t *testing.T) {
	s := sigstoretest.New(t)
	v := trustCI(t, s.Root)
	good := s.Signature(t, subject, ci, tokens)
	accept(t, v, bundleOf(good))
	for name, row := range map[string]struct {
		change func(*protorekor.TransparencyLogEntry)
		why    string
	}{
		"promise":    {func(e *protorekor.TransparencyLogEntry) { e.InclusionPromise.SignedEntryTimestamp[9] ^= 1 }, "not enough verified log entries"},
		"body":       {func(e *protorekor.TransparencyLogEntry) { e.CanonicalizedBody[len(e.CanonicalizedBody)-30] ^= 1 }, ""},
		"index":      {func(e *protorekor.TransparencyLogEntry) { e.LogIndex++ }, "not enough verified log entries"},
		"root":       {func(e *protorekor.TransparencyLogEntry) { e.InclusionProof.RootHash[0] ^= 1 }, "failed to verify log inclusion"},
		"checkpoint": {func(e *protorekor.TransparencyLogEntry) { e.InclusionProof.Checkpoint.Envelope = "x" }, "failed to verify log inclusion"},
		"no proof":   {func(e *protorekor.TransparencyLogEntry) { e.InclusionProof = nil }, "inclusion proof missing"},
		"nothing":    {func(e *protorekor.TransparencyLogEntry) { e.InclusionProof, e.InclusionPromise = nil, nil }, "inclusion proof missing"},
		"kind":       {func(e *protorekor.TransparencyLogEntry) { e.KindVersion = nil }, "malformed"},
		"log":        {func(e *protorekor.TransparencyLogEntry) { e.LogId.KeyId[0] ^= 1 }, "not enough verified log entries"},
	} {
		t.Run(name, func(t *testing.T) {
			reject(t, v, edited(t, good, func(pb *protobundle.Bundle) { row.change(pb.VerificationMaterial.TlogEntries[0]) }), row.why)
		})
	}
	reject(t, v, edited(t, good, func(pb *protobundle.Bundle) { pb.VerificationMaterial.TlogEntries = nil }), "not enough verified log entries")
	for _, f := range identityForms(t, s, manifest, ci, tokens)[3:] {
		accept(t, v, f.e)
		reject(t, v, annotated(f.e, proofAnnotation, ""), "not enough verified log entries")
		reject(t, v, annotated(f.e, proofAnnotation, "{}"), "cannot be read")
	}
}

// V4: the identity is compared whatever the form and whatever proves it.
func TestIdentityIsComparedInEachForm(t *testing.T) {
	s := sigstoretest.New(t)
	for _, parts := range []sigstoretest.Parts{{}, {WithoutLog: true}, {WithoutTimestamps: true}} {
		v := trustCI(t, s.RootOf(t, parts))
		for _, row := range [][2]string{{ci + "0", tokens}, {ci, tokens + "/"}} {
			for _, f := range identityForms(t, s, manifest, row[0], row[1]) {
				if _, err := v.Verify(t.Context(), f.e); !errdefs.IsPermissionDenied(err) {
					t.Errorf("%s by %q: %v", f.name, row, err)
				}
			}
		}
		for _, f := range identityForms(t, s, manifest, ci, tokens) {
			accept(t, v, f.e)
		}
	}
}

// V6, CVE-2022-23649: a promise of another log, and one of another signature.
func TestPromiseMustBeOfThisLogForThisSignature(t *testing.T) {
	s, rogue := sigstoretest.New(t), sigstoretest.New(t)
	v := trustCI(t, s.Root)
	good := s.Signature(t, subject, ci, tokens)
	accept(t, v, bundleOf(good))
	entry := proto(t, good).VerificationMaterial.TlogEntries[0]
	claimed := rogue.Log(t, entry.GetCanonicalizedBody(), entry.GetLogIndex(), entry.GetIntegratedTime())
	replaced := func(e *protorekor.TransparencyLogEntry) evidence.Evidence {
		return edited(t, good, func(pb *protobundle.Bundle) { pb.VerificationMaterial.TlogEntries[0] = e })
	}
	reject(t, v, replaced(claimed), "not enough verified log entries")
	claimed.LogId = entry.LogId
	reject(t, v, replaced(claimed), "not enough verified log entries")

	second := proto(t, s.Signature(t, subject, ci, tokens)).VerificationMaterial.TlogEntries[0]
	reject(t, v, replaced(second), "transparency log signature does not match")
}

func attestedAt(tb testing.TB, s *sigstoretest.Sigstore, when time.Time) []byte {
	tb.Helper()
	e, err := s.CA.AttestAtTime(ci, tokens, sigstoretest.Statement(tb, repository, subject, provenance, predicate), when, false)
	if err != nil {
		tb.Fatal(err)
	}
	return marshalled(tb, s.Proto(tb, e))
}

// V9, CVE-2026-54787, CVE-2024-23332: the virtual certificates live for ten minutes.
func TestCertificateMustBeValidWhenItSigned(t *testing.T) {
	s := sigstoretest.New(t)
	v := trustCI(t, s.Root)
	for _, row := range []struct {
		after time.Duration
		why   string
	}{
		{time.Minute, ""},
		{9 * time.Minute, ""},
		{20 * time.Minute, "integrated time outside certificate validity"},
		{-20 * time.Minute, "integrated time outside certificate validity"},
		{2 * time.Hour, "not enough verified log entries"}, // the log's key has ended too
	} {
		e := bundleOf(attestedAt(t, s, time.Now().Add(row.after)))
		if row.why == "" {
			accept(t, v, e)
			continue
		}
		reject(t, v, e, row.why)
	}
}

// V10, CVE-2026-39984.
func TestForgedCertificateFirstInTheChainIsRefused(t *testing.T) {
	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	v := trustCI(t, s.Root)
	forged, _ := pem.Decode(sigstoretest.SelfSigned(t, k.Private, ci, tokens))
	chained := func(data []byte, before ...[]byte) evidence.Evidence {
		return edited(t, data, func(pb *protobundle.Bundle) {
			pb.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.2"
			chain := &protocommon.X509CertificateChain{}
			for _, raw := range append(before, pb.VerificationMaterial.GetCertificate().GetRawBytes(), s.CA.FulcioCertificateAuthorities()[0].(*root.FulcioCertificateAuthority).Intermediates[0].Raw) {
				chain.Certificates = append(chain.Certificates, &protocommon.X509Certificate{RawBytes: raw})
			}
			pb.VerificationMaterial.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: chain}
		})
	}
	accept(t, v, chained(s.Signature(t, subject, ci, tokens)))
	reject(t, v, chained(s.Signature(t, subject, ci, tokens), forged.Bytes), "transparency log certificate does not match")
	mallory := s.Signature(t, subject, "mallory@example.com", tokens)
	reject(t, v, chained(mallory, forged.Bytes), "transparency log certificate does not match")
	if _, err := v.Verify(t.Context(), chained(mallory)); !errdefs.IsPermissionDenied(err) {
		t.Error(err)
	}
	other, _ := pem.Decode([]byte(s.CosignSignature(t, repository, subject, ci, tokens).Annotations["dev.sigstore.cosign/certificate"]))
	if _, err := x509.ParseCertificate(other.Bytes); err != nil {
		t.Fatal(err)
	}
	reject(t, v, chained(mallory, other.Bytes), "transparency log certificate does not match")
}

// V11, CVE-2026-48816.
func TestIntegratedTimeWithoutASignedPromiseIsNoTime(t *testing.T) {
	s := sigstoretest.New(t)
	v := trustCI(t, s.Root)
	good := s.Signature(t, subject, ci, tokens)
	without := func(promise, timestamps bool) evidence.Evidence {
		return edited(t, good, func(pb *protobundle.Bundle) {
			if promise {
				pb.VerificationMaterial.TlogEntries[0].InclusionPromise = nil
			}
			if timestamps {
				pb.VerificationMaterial.TimestampVerificationData = nil
			}
		})
	}
	accept(t, v, without(false, false))
	accept(t, v, without(false, true))
	accept(t, v, without(true, false))
	reject(t, v, without(true, true), "threshold not met for verified signed & log entry integrated timestamps")
	reject(t, v, edited(t, good, func(pb *protobundle.Bundle) { pb.VerificationMaterial.TlogEntries[0].IntegratedTime++ }), "not enough verified log entries")
	for _, f := range identityForms(t, s, manifest, ci, tokens)[3:] {
		accept(t, v, annotated(f.e, "dev.sigstore.cosign/rfc3161timestamp", ""))
		unsigned := bytes.Replace([]byte(f.e.Annotations[proofAnnotation]), []byte(`"integratedTime":1`), []byte(`"integratedTime":2`), 1)
		reject(t, v, annotated(f.e, proofAnnotation, string(unsigned)), "not enough verified log entries")
	}
}

// Rekor v2 has no integrated time that is signed: a timestamp authority must say when.
func TestEntryOfRekorV2NeedsATimestamp(t *testing.T) {
	s := sigstoretest.New(t)
	v := trustCI(t, s.Root)
	entity := func(of []byte) *ca.TestEntity {
		e, err := s.CA.AttestHashedRekordV2(ci, tokens, of)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	good := marshalled(t, s.Proto(t, entity(sigstoretest.Statement(t, repository, subject, provenance, predicate))))
	if got := accept(t, v, bundleOf(good)); time.Since(got.Time).Abs() > time.Minute {
		t.Errorf("signed at %s, which the authority did not say", got.Time)
	}
	reject(t, v, edited(t, good, func(pb *protobundle.Bundle) { pb.VerificationMaterial.TimestampVerificationData = nil }), "threshold not met")
	reject(t, v, edited(t, good, func(pb *protobundle.Bundle) {
		pb.VerificationMaterial.TlogEntries = s.Proto(t, entity(sigstoretest.Statement(t, repository, sibling, provenance, predicate))).VerificationMaterial.TlogEntries
	}), "failed to verify log inclusion")
	reject(t, v, edited(t, good, func(pb *protobundle.Bundle) { pb.VerificationMaterial.TlogEntries = nil }), "not enough verified log entries")
}

// Each combination of options refuses what lacks one of its parts.
func TestEachCombinationOfOptionsRefuses(t *testing.T) {
	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	good := s.Signature(t, subject, ci, tokens)
	bare := edited(t, good, func(pb *protobundle.Bundle) {
		pb.VerificationMaterial.TlogEntries, pb.VerificationMaterial.TimestampVerificationData = nil, nil
	})
	stamped := edited(t, good, func(pb *protobundle.Bundle) { pb.VerificationMaterial.TlogEntries = nil })
	logged := edited(t, good, func(pb *protobundle.Bundle) { pb.VerificationMaterial.TimestampVerificationData = nil })
	foreign := edited(t, good, func(pb *protobundle.Bundle) {
		pb.VerificationMaterial.TlogEntries = nil
		pb.VerificationMaterial.TimestampVerificationData = proto(t, sigstoretest.New(t).Signature(t, subject, ci, tokens)).VerificationMaterial.TimestampVerificationData
	})
	const noLog, noTime = "not enough verified log entries", "threshold not met"
	for name, row := range map[string]struct {
		parts                          sigstoretest.Parts
		bare, stamped, logged, foreign string // why each is refused, "" for accepted
	}{
		"log and timestamps": {sigstoretest.Parts{}, noLog, noLog, "", noLog},
		"log":                {sigstoretest.Parts{WithoutTimestamps: true}, noLog, noLog, "", noLog},
		"timestamps":         {sigstoretest.Parts{WithoutLog: true}, noTime, "", noTime, noTime},
		"certificate log":    {sigstoretest.Parts{WithCertificateLog: true}, noLog, noLog, "SCT", noLog},
	} {
		t.Run(name, func(t *testing.T) {
			v := trustCI(t, s.RootOf(t, row.parts))
			for _, one := range []struct {
				e   evidence.Evidence
				why string
			}{{bare, row.bare}, {stamped, row.stamped}, {logged, row.logged}, {foreign, row.foreign}} {
				if one.why == "" {
					accept(t, v, one.e)
				} else {
					reject(t, v, one.e, one.why)
				}
			}
		})
	}
	// The options refuse the other material by themselves, without the check before them.
	t.Run("material", func(t *testing.T) {
		of := func(e evidence.Evidence, m material) *signed {
			read, err := readBundle(e, m)
			if err != nil {
				t.Fatal(err)
			}
			return read
		}
		byCertificate, byKey := of(bundleOf(good), byCertificate), of(bundleOf(k.Signature(t, subject)), byKey)
		for _, row := range []struct {
			v   trust.Verifier
			of  *signed
			why string
		}{
			{trustKeys(t, k.PEM), byKey, ""},
			{trustKeys(t, k.PEM), byCertificate, "expected key signature, not certificate"},
			{trustCI(t, s.Root), byCertificate, ""},
			{trustCI(t, s.Root), byKey, noLog},
			{trustCI(t, s.RootOf(t, sigstoretest.Parts{WithoutLog: true})), byKey, noTime},
		} {
			_, err := row.v.(*verifier).signer.authenticate(t.Context(), row.of)
			if (err == nil) != (row.why == "") || err != nil && !strings.Contains(err.Error(), row.why) {
				t.Errorf("%q: %v", row.why, err)
			}
		}
	})
	t.Run("key", func(t *testing.T) {
		accept(t, trustKeys(t, k.PEM), bundleOf(k.Signature(t, subject)))
		reject(t, trustKeys(t, k.PEM), bundleOf(sigstoretest.NewKey(t).Signature(t, subject)), "none of the trust's 1 keys")
	})
}
