package notation

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	gocose "github.com/veraison/go-cose"
)

// Bounds of an envelope, checked before notation sees it. A usual one has 3 KiB, and 10 KiB
// with a timestamp.
const (
	maxEnvelope     = 1 << 20
	maxCertificates = 10
	maxCertificate  = 16 << 10
	maxTimestamp    = 64 << 10
	// maxRSA is how many bits an RSA key may have, as in crypto/tls: notation verifies a
	// chain before it asks whether it trusts its root, and a key of 100,000 bits takes seconds.
	maxRSA = 8192
)

// mediaTypes are those of envelopes.
var mediaTypes = []string{jws.MediaTypeEnvelope, cose.MediaTypeEnvelope}

// unsigned are the parts of an envelope that need a bound of their own.
type unsigned struct {
	certificates [][]byte
	timestamp    []byte
}

// checkEnvelope holds the bounds. It proves nothing.
func checkEnvelope(mediaType string, data []byte) error {
	if !slices.Contains(mediaTypes, mediaType) {
		return fmt.Errorf("the envelope's media type is %s, not one of %q", quote(mediaType), mediaTypes)
	}
	if len(data) > maxEnvelope {
		return fmt.Errorf("the envelope has %d bytes, more than %d", len(data), maxEnvelope)
	}
	read := readJWS
	if mediaType == cose.MediaTypeEnvelope {
		read = readCOSE
	}
	parts, err := read(data)
	if err != nil {
		return fmt.Errorf("the envelope cannot be read: %s", quote(err.Error()))
	}
	if len(parts.timestamp) > maxTimestamp {
		return fmt.Errorf("the timestamp has %d bytes, more than %d", len(parts.timestamp), maxTimestamp)
	}
	if len(parts.certificates) > maxCertificates {
		return fmt.Errorf("the envelope has %d certificates, more than %d", len(parts.certificates), maxCertificates)
	}
	for i, der := range parts.certificates {
		if err := checkCertificate(der); err != nil {
			return fmt.Errorf("certificate %d: %w", i+1, err)
		}
	}
	return nil
}

func checkCertificate(der []byte) error {
	if len(der) > maxCertificate {
		return fmt.Errorf("it has %d bytes, more than %d", len(der), maxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return errors.New(quote(err.Error()))
	}
	if n := max(len(cert.RawSubject), len(cert.RawIssuer)); n > maxName {
		return fmt.Errorf("a name of it has %d bytes, more than %d", n, maxName)
	}
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
		return fmt.Errorf("its key has %d bits, more than %d", key.N.BitLen(), maxRSA)
	}
	return nil
}

// readJWS reads as notation does, after it has refused what is ambiguous.
func readJWS(data []byte) (unsigned, error) {
	if err := unambiguous(data); err != nil {
		return unsigned{}, err
	}
	var envelope struct {
		Protected string `json:"protected"`
		Header    struct {
			Timestamp    []byte   `json:"io.cncf.notary.timestampSignature"`
			Certificates [][]byte `json:"x5c"`
		} `json:"header"`
	}
	if err := json.Unmarshal(data, &envelope); err != nil {
		return unsigned{}, err
	}
	protected, err := base64.RawURLEncoding.DecodeString(envelope.Protected)
	if err != nil {
		return unsigned{}, fmt.Errorf("protected header: %w", err)
	}
	if err := unambiguous(protected); err != nil {
		return unsigned{}, fmt.Errorf("protected header: %w", err)
	}
	return unsigned{envelope.Header.Certificates, envelope.Header.Timestamp}, nil
}

// readCOSE reads as notation does; its parser refuses a label that occurs twice.
func readCOSE(data []byte) (unsigned, error) {
	var message gocose.Sign1Message
	if err := message.UnmarshalCBOR(data); err != nil {
		return unsigned{}, err
	}
	var parts unsigned
	chain, _ := message.Headers.Unprotected[gocose.HeaderLabelX5Chain].([]any)
	for _, entry := range chain {
		der, _ := entry.([]byte)
		parts.certificates = append(parts.certificates, der)
	}
	parts.timestamp, _ = message.Headers.Unprotected["io.cncf.notary.timestampSignature"].([]byte)
	return parts, nil
}
