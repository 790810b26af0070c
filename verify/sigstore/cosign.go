package sigstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"

	"github.com/go-json-experiment/json/jsontext"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// bundleV01 is the version of the bundles into which layers of cosign v1 and v2 are converted:
// later ones demand a proof that the log includes the entry, which the layers lack. They have
// the log's signed promise.
const bundleV01 = "application/vnd.dev.sigstore.bundle+json;version=0.1"

// readCosignSignature reads a layer of a cosign signature: its data is the signed payload, its
// annotations are the signature and whatever proves it.
func readCosignSignature(e evidence.Evidence, m material) (*signed, error) {
	if err := checkAnnotations(e.Annotations); err != nil {
		return nil, err
	}
	encoded := e.Annotations[signatureAnnotation]
	if encoded == "" {
		return nil, refuse("the layer has no annotation "+signatureAnnotation, "sign again with cosign")
	}
	signature, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, refuse("the annotation "+signatureAnnotation+" is not base64", "sign again with cosign")
	}
	hash := sha256.Sum256(e.Data)
	pb := &protobundle.Bundle{Content: &protobundle.Bundle_MessageSignature{
		MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: hash[:]},
			Signature:     signature,
		},
	}}
	ent, err := convert(pb, e.Annotations, m)
	if err != nil {
		return nil, err
	}
	s := &signed{
		entity:   ent,
		artifact: func() verify.ArtifactPolicyOption { return verify.WithArtifact(bytes.NewReader(e.Data)) },
	}
	s.claim, err = readPayload(e.Data, e.Subject.Digest)
	return s, err
}

// readCosignAttestation reads a layer of a cosign attestation: its data is the envelope, its
// annotations prove who signed it.
func readCosignAttestation(e evidence.Evidence, m material) (*signed, error) {
	if err := checkAnnotations(e.Annotations); err != nil {
		return nil, err
	}
	envelope, err := readEnvelope(e.Data)
	if err != nil {
		return nil, err
	}
	c, err := readStatement(envelope.GetPayload(), e.Subject.Digest)
	if err != nil {
		return nil, err
	}
	ent, err := convert(&protobundle.Bundle{Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: envelope}}, e.Annotations, m)
	if err != nil {
		return nil, err
	}
	s, err := aboutDigest(ent, e)
	if err != nil {
		return nil, err
	}
	s.claim = c
	return s, nil
}

// readEnvelope reads a DSSE envelope, which must have one signature.
func readEnvelope(data []byte) (*protodsse.Envelope, error) {
	envelope, signature := &protodsse.Envelope{}, &protodsse.Signature{}
	signatures := 0
	err := readDocument(data, members{
		"payloadType": text(&envelope.PayloadType),
		"payload":     raw(&envelope.Payload),
		"signatures": func(dec *jsontext.Decoder) error {
			return readArray(dec, maxTokens, func(dec *jsontext.Decoder) error {
				signatures++
				return readObject(dec, members{"keyid": text(&signature.Keyid), "sig": raw(&signature.Sig)})
			})
		},
	})
	switch {
	case err != nil:
		return nil, refuseFor("the DSSE envelope cannot be read", err, "attest again with cosign")
	case signatures > 1:
		return nil, tooMany("signatures in the envelope", signatures, 1)
	case signatures == 0:
		return nil, refuse("the envelope has no signature", "attest again with cosign")
	}
	envelope.Signatures = []*protodsse.Signature{signature}
	return envelope, nil
}

// convert completes a bundle v0.1 with what annotations prove, or, for a trust of keys, with
// nothing: a key needs no proof, and a hint of the network is not looked at.
func convert(pb *protobundle.Bundle, annotations map[string]string, m material) (*entity, error) {
	pb.MediaType = bundleV01
	pb.VerificationMaterial = &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}},
	}
	if m == byCertificate {
		var err error
		if pb.VerificationMaterial, err = readProofs(annotations); err != nil {
			return nil, err
		}
	}
	return newEntity(pb)
}
