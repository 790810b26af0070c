package notation

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strconv"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
)

func named(parts ...string) *x509.Certificate {
	oids := map[string]asn1.ObjectIdentifier{"C": {2, 5, 4, 6}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "CN": {2, 5, 4, 3}}
	cert := &x509.Certificate{}
	for _, part := range parts {
		key, value, _ := strings.Cut(part, "=")
		cert.Subject.Names = append(cert.Subject.Names, pkix.AttributeTypeAndValue{Type: oids[key], Value: value})
	}
	return cert
}

func TestIdentityIsOneWhateverTheOrder(t *testing.T) {
	a, b := identity(named("C=US", "O=Vendor", "CN=Release")), identity(named("CN=Release", "O=Vendor", "C=US"))
	if a != b || a != "x509 C=US,CN=Release,O=Vendor" {
		t.Errorf("%q and %q", a, b)
	}
}

func TestDifferentNamesAreDifferentIdentities(t *testing.T) {
	seen := make(map[string]int)
	for i, cert := range []*x509.Certificate{
		named(), named("CN="), named("CN=a"), named("CN=A"), named("O=a"), named("CN=a", "O=b"),
		named("CN=a,O=b"), named("CN=a+O=b"), named(`CN=a\,O=b`), named(`CN=a\`, "O=b"),
		named("CN=a\n"), named(`CN=a\n`), named(`CN=a\\n`), named("CN=a\\\n"), named("CN=a,\n"),
		named("CN=\xff"), named("CN=\ufffd"), named(`CN=\xff`), named("CN=\u202e"), named(`CN=\u202e`),
		named(`CN="`), named(`CN=\"`), named("CN=\"\n"), named("CN=\n\""),
	} {
		id := identity(cert)
		if was, ok := seen[id]; ok {
			t.Errorf("names %d and %d are both %q", was, i, id)
		}
		seen[id] = i
		if strings.ContainsFunc(id, func(r rune) bool { return !strconv.IsPrint(r) }) {
			t.Errorf("%q is not fit to be printed", id)
		}
	}
}

// Two holders of one name are one identity, whichever root issued it; and a holder does not
// become two by a second certificate.
func TestIdentityIsTheSameByEachTrust(t *testing.T) {
	a, b := newSigner(t), newSigner(t, func(_, leaf *x509.Certificate) {
		leaf.Subject.ExtraNames = []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "Release"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Vendor"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 8}, Value: "WA"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "US"},
		}
	})
	if string(a.Leaf.RawSubject) == string(b.Leaf.RawSubject) {
		t.Fatal("the names have one order")
	}
	one := accepted(t, roots(t, a), sign(t, a, notationtest.JWS)).Identity
	two := accepted(t, roots(t, b), sign(t, b, notationtest.COSE)).Identity
	if one != two || one != notationtest.Identity {
		t.Errorf("%q and %q", one, two)
	}
}
