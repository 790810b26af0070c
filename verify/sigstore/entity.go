package sigstore

import (
	"encoding/base64"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// entity is a bundle whose parts are parsed once: sigstore-go asks for each up to three times
// in one verification, and a payload costs twice its size each time. It is not safe for
// concurrent use.
type entity struct {
	*bundle.Bundle
	signature    verify.SignatureContent
	verification verify.VerificationContent
	entries      []*tlog.Entry
}

// newEntity checks the bundle's shape and counts, which the network chose.
func newEntity(pb *protobundle.Bundle) (*entity, error) {
	if err := checkCounts(pb); err != nil {
		return nil, err
	}
	b, err := bundle.NewBundle(pb)
	if err != nil {
		return nil, refuseFor("the sigstore bundle is malformed", err, "sign again with cosign v3")
	}
	e := &entity{Bundle: b}
	if e.verification, err = b.VerificationContent(); err != nil {
		return nil, refuseFor("the bundle's certificate cannot be read", err, "sign again with cosign v3")
	}
	if envelope := pb.GetDsseEnvelope(); envelope != nil {
		e.signature, err = readSignedEnvelope(envelope)
	} else {
		e.signature, err = b.SignatureContent()
	}
	if err != nil {
		return nil, refuseFor("the bundle's signature cannot be read", err, "sign again with cosign v3")
	}
	return e, nil
}

// readSignedEnvelope is [bundle.Bundle.SignatureContent] of an envelope, without a second copy
// of the encoded payload.
func readSignedEnvelope(envelope *protodsse.Envelope) (*bundle.Envelope, error) {
	if len(envelope.GetPayload()) == 0 || len(envelope.GetSignatures()) != 1 || envelope.GetSignatures()[0] == nil {
		return nil, bundle.ErrMissingEnvelope
	}
	var payload strings.Builder
	payload.Grow(base64.StdEncoding.EncodedLen(len(envelope.GetPayload())))
	encoder := base64.NewEncoder(base64.StdEncoding, &payload)
	if _, err := encoder.Write(envelope.GetPayload()); err != nil {
		return nil, err
	}
	if err := encoder.Close(); err != nil {
		return nil, err
	}
	signature := envelope.GetSignatures()[0]
	return &bundle.Envelope{Envelope: &dsse.Envelope{
		Payload:     payload.String(),
		PayloadType: envelope.GetPayloadType(),
		Signatures:  []dsse.Signature{{KeyID: signature.GetKeyid(), Sig: base64.StdEncoding.EncodeToString(signature.GetSig())}},
	}}, nil
}

func checkCounts(pb *protobundle.Bundle) error {
	m := pb.GetVerificationMaterial()
	for _, part := range []struct {
		what    string
		n, most int
	}{
		{"log entries", len(m.GetTlogEntries()), maxEntries},
		{"timestamps", len(m.GetTimestampVerificationData().GetRfc3161Timestamps()), maxEntries},
		{"certificates in the chain", len(m.GetX509CertificateChain().GetCertificates()), maxCertificates},
		{"signatures in the envelope", len(pb.GetDsseEnvelope().GetSignatures()), 1},
	} {
		if part.n > part.most {
			return tooMany(part.what, part.n, part.most)
		}
	}
	for _, ts := range m.GetTimestampVerificationData().GetRfc3161Timestamps() {
		if n := len(ts.GetSignedTimestamp()); n > maxTimestamp {
			return tooMany("bytes of a timestamp", n, maxTimestamp)
		}
	}
	return nil
}

func (e *entity) SignatureContent() (verify.SignatureContent, error) { return e.signature, nil }

func (e *entity) VerificationContent() (verify.VerificationContent, error) {
	return e.verification, nil
}

func (e *entity) TlogEntries() (_ []*tlog.Entry, err error) {
	if e.entries == nil {
		e.entries, err = e.Bundle.TlogEntries()
	}
	return e.entries, err
}
