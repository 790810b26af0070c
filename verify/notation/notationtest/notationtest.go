// Package notationtest makes signatures of the Notary Project for tests: a root and a signing
// certificate that are made when the test runs, so that no test depends on the date.
package notationtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The media types of envelopes.
const (
	JWS  = jws.MediaTypeEnvelope
	COSE = cose.MediaTypeEnvelope
)

const (
	// ArtifactType is that of the manifest that holds an envelope as its only layer.
	ArtifactType = "application/vnd.cncf.notary.signature"
	// Subject is the distinguished name of a signing certificate that nobody changed.
	Subject = "C=US, ST=WA, O=Vendor, CN=Release"
	// Identity is its name in evidence.Verified.
	Identity = "x509 C=US,CN=Release,O=Vendor,ST=WA"
)

// Signer is a root and a signing certificate that it issued, with its key.
type Signer struct {
	Root, Leaf *x509.Certificate
	Key        crypto.Signer
	// RootKey issues more certificates.
	RootKey crypto.Signer
}

// Change changes the templates of root and signing certificate before they are made.
type Change func(root, leaf *x509.Certificate)

// New makes a signer with an ECDSA key, whose certificates are valid from an hour ago for a
// day.
func New(changes ...Change) (*Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return NewWithKey(key, changes...)
}

// NewRSA makes a signer with an RSA key of 2048 bits.
func NewRSA(changes ...Change) (*Signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return NewWithKey(key, changes...)
}

// NewWithKey makes a signer with the key.
func NewWithKey(key crypto.Signer, changes ...Change) (*Signer, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root, leaf := templates(time.Now())
	for _, change := range changes {
		change(root, leaf)
	}
	s := &Signer{Key: key, RootKey: rootKey}
	if s.Root, err = Certificate(root, root, rootKey.Public(), rootKey); err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	if s.Leaf, err = Certificate(leaf, s.Root, key.Public(), rootKey); err != nil {
		return nil, fmt.Errorf("signing certificate: %w", err)
	}
	return s, nil
}

func templates(now time.Time) (root, leaf *x509.Certificate) {
	root = &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Vendor"}, CommonName: "Root"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	leaf = &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Vendor"}, CommonName: "Release"},
		NotBefore:    root.NotBefore,
		NotAfter:     root.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	return root, leaf
}

// Certificate makes a certificate of the template.
func Certificate(template, parent *x509.Certificate, public crypto.PublicKey, issuer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, issuer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// RootPEM is the root, as notation_roots names it.
func (s *Signer) RootPEM() []byte { return PEM(s.Root) }

// PEM encodes certificates.
func PEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}

// Sign signs a descriptor's media type, digest and size, and returns the envelope. Changes
// are made to what notation-core-go is asked; the time of signing is one that lies in the
// validity of the signing certificate.
func (s *Signer) Sign(mediaType string, subject ocispec.Descriptor, changes ...func(*signature.SignRequest)) ([]byte, error) {
	payload, err := json.Marshal(map[string]any{"targetArtifact": ocispec.Descriptor{
		MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size,
	}})
	if err != nil {
		return nil, err
	}
	local, err := signature.NewLocalSigner([]*x509.Certificate{s.Leaf, s.Root}, s.Key)
	if err != nil {
		return nil, err
	}
	request := &signature.SignRequest{
		Payload:       signature.Payload{ContentType: "application/vnd.cncf.notary.payload.v1+json", Content: payload},
		Signer:        local,
		SigningTime:   s.Leaf.NotBefore.Add(time.Second),
		SigningScheme: signature.SigningSchemeX509,
		SigningAgent:  "notationtest",
	}
	for _, change := range changes {
		change(request)
	}
	envelope, err := signature.NewEnvelope(mediaType)
	if err != nil {
		return nil, err
	}
	return envelope.Sign(request)
}
