package notation

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxName is how many bytes a distinguished name may have, as encoded.
const maxName = 4 << 10

// identity names who holds a certificate: "x509 C=US,CN=Release,O=Vendor,ST=WA". Parts are
// sorted, since notation compares them in any order: one holder must not become two by a
// certificate with another order.
func identity(leaf *x509.Certificate) string {
	parts := make([]string, len(leaf.Subject.Names))
	for i, part := range leaf.Subject.Names {
		if value, ok := part.Value.(string); ok && !utf8.ValidString(value) {
			part.Value = []byte(value) // is written as hex; String would replace what it cannot read
		}
		parts[i] = pkix.RDNSequence{{part}}.String() // escapes as RFC 2253 says
	}
	slices.Sort(parts)
	name := strings.Join(parts, ",")
	// Only backslashes before a sign are in name so far; those that Quote adds stand before
	// letters, so that two names never become one.
	if strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }) {
		name = strconv.Quote(name)
		name = name[1 : len(name)-1]
	}
	return "x509 " + name
}

// checkSubject refuses a subject that notation would take apart otherwise than the operator
// sees it.
func checkSubject(subject string) error {
	if len(subject) > maxName {
		return invalid(fmt.Sprintf("a subject has %d bytes, more than %d", len(subject), maxName), "write the distinguished name of who signs")
	}
	return nil
}
