package notation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/result"
	"github.com/notaryproject/notation-go"
	notationverifier "github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
)

const (
	// everywhere is the scope of a statement for all repositories.
	everywhere = "*"
	// x509Subject begins a trusted identity that needs no plugin.
	x509Subject = "x509.subject:"
)

// statement is one statement of a trust policy, with a verifier of its own: the scope is
// decided here, by the repository that the pull knows.
type statement struct {
	policy   trustpolicy.TrustPolicy
	verifier notation.Verifier
}

// newStatement makes a statement. It verifies at level strict without revocation, whatever
// the policy says; a policy that says less is refused before, by checkLevel.
func newStatement(policy trustpolicy.TrustPolicy, store memoryStore) (*statement, error) {
	policy.RegistryScopes = []string{everywhere}
	policy.SignatureVerification = trustpolicy.SignatureVerification{
		VerificationLevel: trustpolicy.LevelStrict.Name,
		Override:          map[trustpolicy.ValidationType]trustpolicy.ValidationAction{trustpolicy.TypeRevocation: trustpolicy.ActionSkip},
		VerifyTimestamp:   policy.SignatureVerification.VerifyTimestamp,
	}
	doc := &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{policy}}
	v, err := notationverifier.NewWithOptions(doc, store, nil, notationverifier.VerifierOptions{
		RevocationCodeSigningValidator:  refuse{},
		RevocationTimestampingValidator: notRevokable{},
	})
	if err != nil {
		return nil, err
	}
	return &statement{policy: policy, verifier: v}, nil
}

// stores reports whether the statement has a trust store of the type.
func (s *statement) stores(kind truststore.Type) bool {
	for _, store := range s.policy.TrustStores {
		if strings.HasPrefix(store, string(kind)+":") {
			return true
		}
	}
	return false
}

// checkTime refuses a statement whose time is over, or not yet come. A trusted time other
// than now, of a timestamp or signing authority, may lie in a root's past.
func (s *statement) checkTime(store memoryStore, now time.Time) error {
	trusted := s.stores(truststore.TypeTSA) || s.stores(truststore.TypeSigningAuthority)
	var last, first *x509.Certificate
	for _, name := range s.policy.TrustStores {
		for _, cert := range store[name] {
			if last == nil || cert.NotAfter.After(last.NotAfter) {
				last = cert
			}
			if first == nil || cert.NotBefore.Before(first.NotBefore) {
				first = cert
			}
		}
	}
	switch {
	case last == nil: // newStatement and the trust store's loader refuse it with better words
		return invalid(fmt.Sprintf("%s: %v", s.policy.Name, errNoCertificate), "write root certificates")
	case !trusted && now.After(last.NotAfter):
		return invalid(fmt.Sprintf("%s: the last of its certificates, %q, has expired at %s", s.policy.Name, cut(last.Subject.String()), last.NotAfter.UTC().Format(time.RFC3339)),
			"write the root that signs now")
	case now.Before(first.NotBefore):
		return invalid(fmt.Sprintf("%s: the first of its certificates, %q, is not valid before %s", s.policy.Name, cut(first.Subject.String()), first.NotBefore.UTC().Format(time.RFC3339)),
			"look whether this machine's clock is right")
	}
	return nil
}

// refuse is a check of revocation that must not happen.
type refuse struct{}

func (refuse) ValidateContext(context.Context, revocation.ValidateContextOptions) ([]*result.CertRevocationResult, error) {
	return nil, errors.New("revocation is not checked")
}

// notRevokable answers for a timestamp authority's certificates, whose revocation notation
// checks at every level: OCSP and CRL addresses come from the network, and nobody asks them.
type notRevokable struct{}

func (notRevokable) ValidateContext(_ context.Context, opts revocation.ValidateContextOptions) ([]*result.CertRevocationResult, error) {
	results := make([]*result.CertRevocationResult, len(opts.CertChain))
	for i := range results {
		results[i] = &result.CertRevocationResult{Result: result.ResultNonRevokable}
	}
	return results, nil
}
