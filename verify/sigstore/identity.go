package sigstore

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// identityOf is the name of whom a certificate is issued to, fit to be printed. Two different
// ones have different names.
func identityOf(subject, issuer string) string {
	return printable(subject) + " (issuer " + printable(issuer) + ")"
}

// printable quotes what could deceive a reader. What it does not quote has no space, and so no
// " (issuer ".
func printable(text string) string {
	strange := func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }
	if text == "" || strings.ContainsFunc(text, strange) {
		return strconv.QuoteToASCII(text)
	}
	return text
}

// nameOf is the identity in a certificate that has been verified.
func nameOf(s *certificate.Summary) (string, error) {
	for _, text := range []string{s.SubjectAlternativeName, s.Issuer} {
		if len(text) > maxText {
			return "", tooMany("bytes in the certificate's identity", len(text), maxText)
		}
	}
	return identityOf(s.SubjectAlternativeName, s.Issuer), nil
}

// matchers are identities as sigstore-go compares them. It does not anchor expressions.
func matchers(identities []trust.Identity) (verify.CertificateIdentities, error) {
	var all verify.CertificateIdentities
	for i, id := range identities {
		issuer, err := anchored(id.IssuerRegexp)
		if err != nil {
			return nil, refuseFor(fmt.Sprintf("identity %d: issuer_regexp", i+1), err, "write an RE2 expression")
		}
		subject, err := anchored(id.SubjectRegexp)
		if err != nil {
			return nil, refuseFor(fmt.Sprintf("identity %d: subject_regexp", i+1), err, "write an RE2 expression")
		}
		m, err := verify.NewShortCertificateIdentity(id.Issuer, issuer, id.Subject, subject)
		if err != nil {
			return nil, refuseFor(fmt.Sprintf("identity %d", i+1), err, "write an issuer and a subject")
		}
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, refuse("trusted_root without identities", `write identities = [{ issuer = "…", subject = "…" }]`)
	}
	return all, nil
}

// anchored leaves "", which compares nothing, as it is.
func anchored(pattern string) (string, error) {
	if pattern == "" {
		return "", nil
	}
	re, err := trust.Anchored(pattern)
	if err != nil {
		return "", err
	}
	return re.String(), nil
}

// names are the identities that are written in full; ok says that all of them are.
func names(identities []trust.Identity) (all []string, ok bool) {
	seen := map[string]bool{}
	ok = true
	for _, id := range identities {
		if id.Issuer == "" || id.Subject == "" {
			ok = false
			continue
		}
		if name := identityOf(id.Subject, id.Issuer); !seen[name] {
			seen[name] = true
			all = append(all, name)
		}
	}
	return all, ok
}
