package notation

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/notaryproject/notation-go/verifier/truststore"

	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// memoryStore is a trust store of notation without a file: certificates by "type:name".
type memoryStore map[string][]*x509.Certificate

var _ truststore.X509TrustStore = memoryStore(nil)

func (s memoryStore) add(kind truststore.Type, name string, certs []*x509.Certificate) {
	key := string(kind) + ":" + name
	s[key] = append(s[key], certs...)
}

// GetCertificates returns the certificates of one store.
func (s memoryStore) GetCertificates(_ context.Context, kind truststore.Type, name string) ([]*x509.Certificate, error) {
	certs := s[string(kind)+":"+name]
	if len(certs) == 0 {
		return nil, truststore.TrustStoreError{Msg: fmt.Sprintf("trust store %q of type %q does not exist", name, kind)}
	}
	return certs, nil
}

// facts say when the first certificate that is still valid ends, and when the newest begins.
// One that has ended already verifies nothing new, so that the end of another cannot come
// first. Identities have no bound: a subject matches certificates that have more parts.
func (s memoryStore) facts(now time.Time) trust.Facts {
	var facts trust.Facts
	for _, certs := range s {
		for _, cert := range certs {
			if cert.NotAfter.After(now) && (facts.Expires.IsZero() || cert.NotAfter.Before(facts.Expires)) {
				facts.Expires = cert.NotAfter
			}
			if cert.NotBefore.After(facts.Issued) {
				facts.Issued = cert.NotBefore
			}
		}
	}
	return facts
}

var pemBegin = []byte("-----BEGIN ")

// parsePEM returns the certificates of a file. Whatever else stands in it as PEM is refused,
// and so is a block that does not decode, which encoding/pem would pass over.
func parsePEM(file trust.File) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	blocks := bytes.Count(file.Data, pemBegin)
	for rest := file.Data; ; blocks-- {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return nil, invalid(fmt.Sprintf("%s holds a private key", file.Path), "leave it with who signs, and write the root certificate only")
		case block.Type != "CERTIFICATE":
			return nil, invalid(fmt.Sprintf("%s holds a block %q", file.Path, block.Type), "write root certificates, PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, invalid(fmt.Sprintf("certificate %d of %s does not parse: %v", len(certs)+1, file.Path, err), "write root certificates, PEM")
		}
		certs = append(certs, cert)
	}
	if blocks != 0 {
		return nil, invalid(fmt.Sprintf("a block of %s does not decode", file.Path), "copy the file anew, it is cut off or has been changed")
	}
	if len(certs) == 0 {
		return nil, invalid(fmt.Sprintf("%s: %v", file.Path, errNoCertificate), "write root certificates, PEM (-----BEGIN CERTIFICATE-----)")
	}
	return certs, nil
}

// parseStored returns the certificates of a file of notation's trust store, PEM or DER.
func parseStored(file trust.File) ([]*x509.Certificate, error) {
	if bytes.Contains(file.Data, pemBegin) || len(file.Data) == 0 {
		return parsePEM(file)
	}
	certs, err := x509.ParseCertificates(file.Data)
	if err != nil {
		return nil, invalid(fmt.Sprintf("%s is neither PEM nor DER: %v", file.Path, err), "write certificates into the trust store, nothing else")
	}
	return certs, nil
}

// checkRoot refuses what cannot issue a signing certificate.
func checkRoot(path string, cert *x509.Certificate) error {
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		remedy := "write the root that issued it, and its subject into subjects"
		if bytes.Equal(cert.RawSubject, cert.RawIssuer) {
			remedy = "it signs for itself: only notation_dir, with a trust store of its own, accepts that"
		}
		return invalid(fmt.Sprintf("%s: the certificate %q is no certificate authority", path, cut(cert.Subject.String())), remedy)
	case cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return invalid(fmt.Sprintf("%s: the certificate %q may not sign certificates (key usage)", path, cut(cert.Subject.String())), "write the root that issues signing certificates")
	}
	return nil
}

// checkStored holds what notation demands of the files in a trust store: an authority, or a
// certificate that signs for itself; for timestamps a root.
func checkStored(kind truststore.Type, certs []*x509.Certificate) error {
	if err := truststore.ValidateCertificates(certs); err != nil {
		return err
	}
	for _, cert := range certs {
		if kind != truststore.TypeTSA {
			continue
		}
		if !bytes.Equal(cert.RawSubject, cert.RawIssuer) || cert.CheckSignatureFrom(cert) != nil {
			return fmt.Errorf("%q is no root, which a trust store for timestamps must hold", cut(cert.Subject.String()))
		}
	}
	return nil
}
