package sigstoretest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"
)

// Key is a key pair that signs as cosign does with --key.
type Key struct {
	Private crypto.Signer
	// PEM is the public key, for trust.<name>.keys.
	PEM []byte
	// Hint is the hint that bundles give of the key.
	Hint string

	signer signature.Signer
}

// NewKey makes a key of ECDSA P-256.
func NewKey(tb testing.TB) *Key {
	tb.Helper()
	return KeyOf(tb, must[*ecdsa.PrivateKey](tb)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), crypto.SHA256)
}

// KeyOf makes a key of a private key, which signs with hash where its algorithm does not say.
func KeyOf(tb testing.TB, private crypto.Signer, hash crypto.Hash) *Key {
	tb.Helper()
	der := must[[]byte](tb)(x509.MarshalPKIXPublicKey(private.Public()))
	return &Key{
		Private: private,
		PEM:     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		Hint:    base64.StdEncoding.EncodeToString([]byte(digest.FromBytes(der).Encoded()[:8])),
		signer:  must[signature.Signer](tb)(signature.LoadSigner(private, hash)),
	}
}

// Sign signs a message.
func (k *Key) Sign(tb testing.TB, message []byte) []byte {
	tb.Helper()
	return must[[]byte](tb)(k.signer.SignMessage(bytes.NewReader(message)))
}

// Signature is a bundle v0.3 that signs subject, as cosign v3 makes it.
func (k *Key) Signature(tb testing.TB, subject digest.Digest) []byte {
	tb.Helper()
	return k.Bundle(tb, Statement(tb, "", subject, SignPredicateType, map[string]any{}))
}

// Attestation is a bundle v0.3 with a statement about subject.
func (k *Key) Attestation(tb testing.TB, name string, subject digest.Digest, predicateType string, predicate any) []byte {
	tb.Helper()
	return k.Bundle(tb, Statement(tb, name, subject, predicateType, predicate))
}

// Bundle is a bundle v0.3 with any payload of in-toto's type.
func (k *Key) Bundle(tb testing.TB, payload []byte) []byte {
	tb.Helper()
	sig := k.Sign(tb, dsse.PAE(intotoMediaType, payload))
	return k.bundle(tb, &protobundle.Bundle{Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
		Payload: payload, PayloadType: intotoMediaType, Signatures: []*protodsse.Signature{{Sig: sig}},
	}}})
}

// MessageSignature is a bundle v0.3 with a signature over message itself, as cosign sign-blob
// makes it.
func (k *Key) MessageSignature(tb testing.TB, message []byte) []byte {
	tb.Helper()
	return k.messageBundle(tb, digest.FromBytes(message), k.Sign(tb, message))
}

func (k *Key) messageBundle(tb testing.TB, subject digest.Digest, sig []byte) []byte {
	return k.bundle(tb, &protobundle.Bundle{Content: &protobundle.Bundle_MessageSignature{MessageSignature: messageSignature(tb, subject, sig)}})
}

func (k *Key) bundle(tb testing.TB, pb *protobundle.Bundle) []byte {
	tb.Helper()
	pb.MediaType = BundleMediaType
	pb.VerificationMaterial = &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: k.Hint}},
	}
	return must[[]byte](tb)(protojson.Marshal(pb))
}

// CosignSignature is a layer of a .sig that signs subject under the name of reference.
func (k *Key) CosignSignature(tb testing.TB, reference string, subject digest.Digest) Layer {
	tb.Helper()
	return k.SignedPayload(tb, Payload(tb, reference, subject))
}

// SignedPayload is a layer of a .sig with any payload.
func (k *Key) SignedPayload(tb testing.TB, payload []byte) Layer {
	tb.Helper()
	return Layer{MediaType: SignatureMediaType, Data: payload, Annotations: map[string]string{
		"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(k.Sign(tb, payload)),
	}}
}

// CosignAttestation is a layer of a .att with a statement about subject.
func (k *Key) CosignAttestation(tb testing.TB, name string, subject digest.Digest, predicateType string, predicate any) Layer {
	tb.Helper()
	return k.Envelope(tb, Statement(tb, name, subject, predicateType, predicate))
}

// Envelope is a layer of a .att with any payload.
func (k *Key) Envelope(tb testing.TB, payload []byte) Layer {
	tb.Helper()
	return envelopeLayer(tb, payload, k.Sign(tb, dsse.PAE(intotoMediaType, payload)))
}

func envelopeLayer(tb testing.TB, payload, sig []byte) Layer {
	tb.Helper()
	return Layer{
		MediaType: EnvelopeMediaType,
		Data: marshal(tb, map[string]any{
			"payloadType": intotoMediaType,
			"payload":     payload,
			"signatures":  []any{map[string]any{"keyid": "", "sig": sig}},
		}),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": ""},
	}
}

func messageSignature(tb testing.TB, subject digest.Digest, sig []byte) *protocommon.MessageSignature {
	tb.Helper()
	algorithm := protocommon.HashAlgorithm_SHA2_256
	if subject.Algorithm() == digest.SHA512 {
		algorithm = protocommon.HashAlgorithm_SHA2_512
	}
	return &protocommon.MessageSignature{
		MessageDigest: &protocommon.HashOutput{Algorithm: algorithm, Digest: must[[]byte](tb)(hexBytes(subject))},
		Signature:     sig,
	}
}
