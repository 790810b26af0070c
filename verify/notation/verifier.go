package notation

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-go"
	notationverifier "github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/notaryproject/tspclient-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// note is what every verification leaves out.
const note = "revocation is not checked"

// anyArtifact is the reference that notation demands. It chooses a statement by it, and each
// of our documents has but one, for all repositories.
const anyArtifact = "image/image@"

// verifier verifies by the statements of a trust policy, by their scopes.
type verifier struct {
	statements map[string]*statement
	facts      trust.Facts
}

// Facts say what the trust is made of.
func (v *verifier) Facts() trust.Facts { return v.facts }

// Verify says what an envelope proves.
func (v *verifier) Verify(ctx context.Context, e evidence.Evidence) (evidence.Verified, error) {
	if e.Format != evidence.Notation {
		return evidence.Verified{}, fmt.Errorf("certificates of the Notary Project verify %s, not %s: %w", evidence.Notation, quote(string(e.Format)), errdefs.ErrNotImplemented)
	}
	st := v.statements[scopeOf(e.Repository)]
	if st == nil {
		st = v.statements[everywhere]
	}
	if st == nil {
		return evidence.Verified{}, fmt.Errorf("the trust policy has no statement for repository %s and none for all; write one with its registryScopes: %w", quote(e.Repository), errdefs.ErrPermissionDenied)
	}
	if err := checkEnvelope(e.MediaType, e.Data); err != nil {
		return evidence.Verified{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	before := time.Now()
	outcome, err := st.verifier.Verify(ctx, e.Subject, e.Data, notation.VerifierVerifyOptions{
		ArtifactReference:  anyArtifact,
		SignatureMediaType: e.MediaType,
	})
	if err := judge(outcome, err, e.Subject); err != nil {
		return evidence.Verified{}, err
	}
	signer := outcome.EnvelopeContent.SignerInfo
	return evidence.Verified{
		Kind:     evidence.Signature,
		Identity: identity(signer.CertificateChain[0]),
		Time:     st.signedAt(signer, before),
		Notes:    []string{note},
	}, nil
}

// judge says why an outcome proves nothing of the subject, or returns nil. What the envelope
// signs is compared here as well, so that a signature by somebody else is told from one of
// something else.
func judge(outcome *notation.VerificationOutcome, failed error, subject ocispec.Descriptor) error {
	if outcome == nil || outcome.EnvelopeContent == nil {
		return refused(failed)
	}
	content := outcome.EnvelopeContent
	if err := checkPayload(content.Payload.Content, subject); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := checkCritical(content.SignerInfo.SignedAttributes.ExtendedAttributes); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	for _, result := range outcome.VerificationResults {
		if result.Type != trustpolicy.TypeAuthenticity || result.Error == nil {
			continue
		}
		who := quote(identity(content.SignerInfo.CertificateChain[0]))
		var stranger *signature.SignatureAuthenticityError
		if errors.As(result.Error, &stranger) {
			return fmt.Errorf("%s signed it, by a root that is not trusted: %w", who, errdefs.ErrPermissionDenied)
		}
		return fmt.Errorf("%s signed it, who is not trusted: %s: %w", who, quote(result.Error.Error()), errdefs.ErrPermissionDenied)
	}
	if failed != nil {
		return refused(failed)
	}
	return nil
}

// refused passes on what notation says. Its text quotes the envelope.
func refused(err error) error {
	if err == nil {
		err = errors.New("notation verified nothing")
	}
	return fmt.Errorf("notation refuses the envelope: %s: %w", quote(err.Error()), errdefs.ErrInvalidArgument)
}

// checkPayload compares what is signed with the subject: type, digest and size.
func checkPayload(payload []byte, subject ocispec.Descriptor) error {
	if err := unambiguous(payload); err != nil {
		return fmt.Errorf("the payload cannot be read: %s", quote(err.Error()))
	}
	var signed struct {
		Target ocispec.Descriptor `json:"targetArtifact"`
	}
	if err := json.Unmarshal(payload, &signed); err != nil {
		return fmt.Errorf("the payload cannot be read: %s", quote(err.Error()))
	}
	switch target := signed.Target; {
	case target.Digest != subject.Digest:
		return fmt.Errorf("it signs %s, not %s", quote(target.Digest.String()), subject.Digest)
	case target.Size != subject.Size:
		return fmt.Errorf("it signs a subject of %d bytes, not of %d", target.Size, subject.Size)
	case target.MediaType != subject.MediaType:
		return fmt.Errorf("it signs a subject of type %s, not %q", quote(target.MediaType), subject.MediaType)
	}
	return nil
}

// checkCritical refuses attributes that a verifier must understand and this one does not.
// notation leaves them to plugins, and passes over them where the envelope names none.
func checkCritical(attributes []signature.Attribute) error {
	for _, attribute := range attributes {
		key, _ := attribute.Key.(string)
		if slices.Contains(notationverifier.VerificationPluginHeaders, key) {
			return fmt.Errorf("the signature demands a plugin of notation (%s = %s), as those of AWS Signer do; none is run here: sign with a certificate that notation verifies itself",
				key, quote(fmt.Sprint(attribute.Value)))
		}
	}
	for _, attribute := range attributes {
		if attribute.Critical {
			return fmt.Errorf("the signature has the critical attribute %s, which is not understood here", quote(fmt.Sprint(attribute.Key)))
		}
	}
	return nil
}

// signedAt returns when an authority that the statement trusts says that a verified envelope
// was signed; zero where notation asked none. began is a time before it verified.
func (s *statement) signedAt(signer signature.SignerInfo, began time.Time) time.Time {
	if signer.SignedAttributes.SigningScheme == signature.SigningSchemeX509SigningAuthority {
		return signer.SignedAttributes.SigningTime
	}
	if !s.stores(truststore.TypeTSA) {
		return time.Time{}
	}
	expired := slices.ContainsFunc(signer.CertificateChain, func(cert *x509.Certificate) bool { return began.After(cert.NotAfter) })
	if s.policy.SignatureVerification.VerifyTimestamp == trustpolicy.OptionAfterCertExpiry && !expired {
		return time.Time{} // notation has not looked at the timestamp
	}
	token, err := tspclient.ParseSignedToken(signer.UnsignedAttributes.TimestampSignature)
	if err != nil {
		return time.Time{}
	}
	info, err := token.Info()
	if err != nil {
		return time.Time{}
	}
	timestamp, err := info.Validate(signer.Signature)
	if err != nil {
		return time.Time{}
	}
	return timestamp.Value
}
