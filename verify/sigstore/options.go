package sigstore

import "github.com/sigstore/sigstore-go/pkg/verify"

// The few combinations of sigstore-go's options. A key goes with WithKey and an identity with
// WithCertificateIdentity, without which the library verifies less and says nothing.

// keyOptions are those of a public key: no log and no time is needed. WithNoObserverTimestamps
// also refuses certificates.
func keyOptions() []verify.VerifierOption {
	return []verify.VerifierOption{verify.WithNoObserverTimestamps(), verify.WithoutStatementPredicate()}
}

func keyPolicy(s *signed) verify.PolicyBuilder {
	return verify.NewPolicy(s.artifact(), verify.WithKey())
}

// services say what a trusted root has, and so what it demands.
type services struct {
	logs, ctLogs bool
}

// rootOptions are those of a trusted root: what its instance has must have seen the signature.
// A time is always demanded, since certificates live for minutes: it is that of a log's signed
// promise, or of a timestamp authority.
func rootOptions(has services) []verify.VerifierOption {
	options := []verify.VerifierOption{verify.WithObserverTimestamps(1), verify.WithoutStatementPredicate()}
	if has.logs {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if has.ctLogs {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	return options
}

func rootPolicy(s *signed, identities verify.CertificateIdentities) verify.PolicyBuilder {
	options := make([]verify.PolicyOption, len(identities))
	for i, id := range identities {
		options[i] = verify.WithCertificateIdentity(id)
	}
	return verify.NewPolicy(s.artifact(), options...)
}
