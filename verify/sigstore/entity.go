package sigstore

import (
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
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
	if e.signature, err = b.SignatureContent(); err != nil {
		return nil, refuseFor("the bundle's signature cannot be read", err, "sign again with cosign v3")
	}
	return e, nil
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
