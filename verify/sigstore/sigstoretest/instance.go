package sigstoretest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"maps"
	"testing"

	"github.com/opencontainers/go-digest"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"
)

// Sigstore is an instance: a certificate authority, a log and a timestamp authority. It has no
// certificate log.
type Sigstore struct {
	CA *ca.VirtualSigstore
	// Root is its trusted_root.json.
	Root []byte
}

// Parts are what a trusted root may leave out.
type Parts struct {
	WithoutLog, WithoutTimestamps bool
	WithCertificateLog            bool
}

// New makes an instance.
func New(tb testing.TB) *Sigstore {
	tb.Helper()
	s := &Sigstore{CA: must[*ca.VirtualSigstore](tb)(ca.NewVirtualSigstore())}
	s.Root = s.RootOf(tb, Parts{})
	return s
}

// RootOf is a trusted_root.json of some of the instance's parts.
func (s *Sigstore) RootOf(tb testing.TB, parts Parts) []byte {
	tb.Helper()
	var logs, ctLogs map[string]*root.TransparencyLog
	var timestamps []root.TimestampingAuthority
	if !parts.WithoutLog {
		logs = withIDs(tb, s.CA.RekorLogs())
	}
	if !parts.WithoutTimestamps {
		timestamps = s.CA.TimestampingAuthorities()
	}
	if parts.WithCertificateLog {
		ctLogs = withIDs(tb, s.CA.CTLogs())
	}
	r := must[*root.TrustedRoot](tb)(root.NewTrustedRoot(root.TrustedRootMediaType01, s.CA.FulcioCertificateAuthorities(), ctLogs, timestamps, logs))
	return must[[]byte](tb)(r.MarshalJSON())
}

// withIDs gives logs the identifiers that a trusted_root.json has: those of the virtual
// Sigstore are in hexadecimal.
func withIDs(tb testing.TB, logs map[string]*root.TransparencyLog) map[string]*root.TransparencyLog {
	tb.Helper()
	logs = maps.Clone(logs)
	for id, log := range logs {
		fixed := *log
		fixed.ID = must[[]byte](tb)(hex.DecodeString(id))
		logs[id] = &fixed
	}
	return logs
}

// Signature is a bundle v0.3 that signs subject, as cosign v3 makes it.
func (s *Sigstore) Signature(tb testing.TB, subject digest.Digest, identity, issuer string) []byte {
	tb.Helper()
	return s.Bundle(tb, Statement(tb, "", subject, SignPredicateType, map[string]any{}), identity, issuer)
}

// Attestation is a bundle v0.3 with a statement about subject.
func (s *Sigstore) Attestation(tb testing.TB, name string, subject digest.Digest, identity, issuer, predicateType string, predicate any) []byte {
	tb.Helper()
	return s.Bundle(tb, Statement(tb, name, subject, predicateType, predicate), identity, issuer)
}

// Bundle is a bundle v0.3 with any payload of in-toto's type, a log entry with its promise and
// proof, and a timestamp.
func (s *Sigstore) Bundle(tb testing.TB, payload []byte, identity, issuer string) []byte {
	tb.Helper()
	return must[[]byte](tb)(protojson.Marshal(s.Proto(tb, must[*ca.TestEntity](tb)(s.CA.Attest(identity, issuer, payload)))))
}

// MessageSignature is a bundle v0.3 with a signature over message itself.
func (s *Sigstore) MessageSignature(tb testing.TB, message []byte, identity, issuer string) []byte {
	tb.Helper()
	return must[[]byte](tb)(protojson.Marshal(s.Proto(tb, must[*ca.TestEntity](tb)(s.CA.Sign(identity, issuer, message)))))
}

// CosignSignature is a layer of a .sig that signs subject under the name of reference.
func (s *Sigstore) CosignSignature(tb testing.TB, reference string, subject digest.Digest, identity, issuer string) Layer {
	tb.Helper()
	return s.SignedPayload(tb, Payload(tb, reference, subject), identity, issuer)
}

// SignedPayload is a layer of a .sig with any payload.
func (s *Sigstore) SignedPayload(tb testing.TB, payload []byte, identity, issuer string) Layer {
	tb.Helper()
	return LayerOf(tb, s.Proto(tb, must[*ca.TestEntity](tb)(s.CA.Sign(identity, issuer, payload))), payload)
}

// CosignAttestation is a layer of a .att with a statement about subject.
func (s *Sigstore) CosignAttestation(tb testing.TB, name string, subject digest.Digest, identity, issuer, predicateType string, predicate any) Layer {
	tb.Helper()
	payload := Statement(tb, name, subject, predicateType, predicate)
	return LayerOf(tb, s.Proto(tb, must[*ca.TestEntity](tb)(s.CA.Attest(identity, issuer, payload))), payload)
}

// LayerOf writes a bundle as cosign v2 does: a layer of a .sig over payload, or of a .att.
func LayerOf(tb testing.TB, pb *protobundle.Bundle, payload []byte) Layer {
	tb.Helper()
	layer := Layer{MediaType: SignatureMediaType, Data: payload, Annotations: map[string]string{
		"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(pb.GetMessageSignature().GetSignature()),
	}}
	if pb.GetDsseEnvelope() != nil {
		layer = envelopeLayer(tb, pb.GetDsseEnvelope().GetPayload(), pb.GetDsseEnvelope().GetSignatures()[0].GetSig())
	}
	maps.Copy(layer.Annotations, annotationsOf(tb, pb))
	return layer
}

// annotationsOf are what cosign v2 writes of a certificate, its log entry and its timestamp.
func annotationsOf(tb testing.TB, pb *protobundle.Bundle) map[string]string {
	tb.Helper()
	material := pb.GetVerificationMaterial()
	annotations := map[string]string{
		"dev.sigstore.cosign/certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: material.GetCertificate().GetRawBytes()})),
	}
	for _, entry := range material.GetTlogEntries() {
		annotations["dev.sigstore.cosign/bundle"] = logAnnotation(tb, entry)
	}
	for _, timestamp := range material.GetTimestampVerificationData().GetRfc3161Timestamps() {
		annotations["dev.sigstore.cosign/rfc3161timestamp"] = string(marshal(tb, map[string]any{
			"SignedRFC3161Timestamp": timestamp.GetSignedTimestamp(),
		}))
	}
	return annotations
}

func logAnnotation(tb testing.TB, entry *protorekor.TransparencyLogEntry) string {
	tb.Helper()
	return string(marshal(tb, map[string]any{
		"SignedEntryTimestamp": entry.GetInclusionPromise().GetSignedEntryTimestamp(),
		"Payload":              rekorPayload(entry),
	}))
}

// Proto is an entity of the virtual Sigstore as a bundle v0.3.
func (s *Sigstore) Proto(tb testing.TB, e *ca.TestEntity) *protobundle.Bundle {
	tb.Helper()
	certificate := must[verify.VerificationContent](tb)(e.VerificationContent()).Certificate()
	pb := &protobundle.Bundle{
		MediaType: BundleMediaType,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content:                   &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: certificate.Raw}},
			TimestampVerificationData: &protobundle.TimestampVerificationData{},
		},
	}
	for _, entry := range must[[]*tlog.Entry](tb)(e.TlogEntries()) {
		pb.VerificationMaterial.TlogEntries = append(pb.VerificationMaterial.TlogEntries, s.logEntry(tb, entry.TransparencyLogEntry()))
	}
	for _, ts := range must[[][]byte](tb)(e.Timestamps()) {
		data := pb.VerificationMaterial.TimestampVerificationData
		data.Rfc3161Timestamps = append(data.Rfc3161Timestamps, &protocommon.RFC3161SignedTimestamp{SignedTimestamp: ts})
	}
	content := must[verify.SignatureContent](tb)(e.SignatureContent())
	if envelope := content.EnvelopeContent(); envelope != nil {
		pb.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload:     must[[]byte](tb)(envelope.RawEnvelope().DecodeB64Payload()),
			PayloadType: envelope.RawEnvelope().PayloadType,
			Signatures:  []*protodsse.Signature{{Sig: content.Signature()}},
		}}
		return pb
	}
	subject := digest.NewDigestFromBytes(digest.SHA256, content.MessageSignatureContent().Digest())
	pb.Content = &protobundle.Bundle_MessageSignature{MessageSignature: messageSignature(tb, subject, content.Signature())}
	return pb
}

// logEntry completes an entry with what a real log returns: the virtual Sigstore keeps the
// promise to itself, and proves the inclusion of some entries only.
func (s *Sigstore) logEntry(tb testing.TB, entry *protorekor.TransparencyLogEntry) *protorekor.TransparencyLogEntry {
	tb.Helper()
	if entry.GetKindVersion() != nil { // Rekor v2
		return entry
	}
	return s.Log(tb, entry.GetCanonicalizedBody(), entry.GetLogIndex(), entry.GetIntegratedTime())
}

// Log is the entry of any body in the instance's log of Rekor v1, with promise and proof.
func (s *Sigstore) Log(tb testing.TB, body []byte, index, integratedTime int64) *protorekor.TransparencyLogEntry {
	tb.Helper()
	var kind struct{ Kind, APIVersion string }
	check(tb, json.Unmarshal(body, &kind))
	proof := must[*models.InclusionProof](tb)(s.CA.GetInclusionProof(body))
	entry := &protorekor.TransparencyLogEntry{
		LogIndex:          index,
		LogId:             &protocommon.LogId{KeyId: must[[]byte](tb)(hex.DecodeString(must[string](tb)(s.CA.RekorLogID())))},
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		IntegratedTime:    integratedTime,
		CanonicalizedBody: body,
		InclusionProof: &protorekor.InclusionProof{
			LogIndex:   *proof.LogIndex,
			RootHash:   must[[]byte](tb)(hex.DecodeString(*proof.RootHash)),
			TreeSize:   *proof.TreeSize,
			Checkpoint: &protorekor.Checkpoint{Envelope: *proof.Checkpoint},
		},
	}
	for _, hash := range proof.Hashes {
		entry.InclusionProof.Hashes = append(entry.InclusionProof.Hashes, must[[]byte](tb)(hex.DecodeString(hash)))
	}
	entry.InclusionPromise = &protorekor.InclusionPromise{
		SignedEntryTimestamp: must[[]byte](tb)(s.CA.RekorSignPayload(rekorPayload(entry))),
	}
	return entry
}

func rekorPayload(entry *protorekor.TransparencyLogEntry) tlog.RekorPayload {
	return tlog.RekorPayload{
		Body:           base64.StdEncoding.EncodeToString(entry.GetCanonicalizedBody()),
		IntegratedTime: entry.GetIntegratedTime(),
		LogIndex:       entry.GetLogIndex(),
		LogID:          hex.EncodeToString(entry.GetLogId().GetKeyId()),
	}
}

func hexBytes(d digest.Digest) ([]byte, error) { return hex.DecodeString(d.Encoded()) }
