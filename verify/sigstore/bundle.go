package sigstore

import (
	"encoding/base64"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// readBundle reads a sigstore bundle, v0.1 to v0.3: a signature over the subject's bytes, or a
// statement about it.
func readBundle(e evidence.Evidence, m material) (*signed, error) {
	if err := countTokens(e.Data, maxTokens); err != nil {
		return nil, refuseFor("the sigstore bundle cannot be read", err, "sign again with cosign v3")
	}
	pb := &protobundle.Bundle{}
	// It refuses names that stand there twice, and ones it does not know.
	if err := protojson.Unmarshal(e.Data, pb); err != nil {
		return nil, refuseFor("the sigstore bundle cannot be read", err, "sign again with cosign v3")
	}
	payload := pb.GetDsseEnvelope().GetPayload()
	if frame := len(e.Data) - base64.StdEncoding.EncodedLen(len(payload)); frame > maxFrame {
		return nil, tooMany("bytes of the bundle beside its payload", frame, maxFrame)
	}
	ent, err := newEntity(pb)
	if err != nil {
		return nil, err
	}
	if err := ent.checkMaterial(m); err != nil {
		return nil, err
	}
	s, err := aboutDigest(ent, e)
	if err != nil {
		return nil, err
	}
	if pb.GetDsseEnvelope() == nil {
		s.claim = claim{kind: evidence.Signature}
		return s, nil
	}
	s.claim, err = readStatement(payload, e.Subject.Digest)
	return s, err
}

// aboutDigest makes an entity be verified to be about the subject's digest.
func aboutDigest(ent *entity, e evidence.Evidence) (*signed, error) {
	algorithm, value, err := digestBytes(e.Subject.Digest)
	if err != nil {
		return nil, err
	}
	return &signed{
		entity:     ent,
		artifact:   func() verify.ArtifactPolicyOption { return verify.WithArtifactDigest(algorithm, value) },
		digestOnly: true,
	}, nil
}

// checkMaterial refuses a certificate where a key is wanted, and the reverse. sigstore-go does
// so too, and says less.
func (e *entity) checkMaterial(m material) error {
	switch hasKey := e.verification.PublicKey() != nil; {
	case m == byKey && !hasKey:
		return refuse("it is signed with a certificate, and this trust has keys",
			"name a trust with trusted_root and identities, or sign with the key")
	case m == byCertificate && hasKey:
		return refuse("it is signed with a key, and this trust has identities, which have certificates",
			"name a trust with keys, or sign with a certificate")
	}
	return nil
}
