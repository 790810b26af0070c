package notation

import (
	"crypto/x509"
	"testing"

	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/signer"

	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
)

// What notation itself signs is verified, with its annotations.
func TestSignatureByNotationIsVerified(t *testing.T) {
	s := newSigner(t)
	each(t, func(t *testing.T, mediaType string) {
		producer := must[*signer.GenericSigner](t)(signer.NewGenericSigner(s.Key, []*x509.Certificate{s.Leaf, s.Root}))
		annotated := subject
		annotated.Annotations = map[string]string{"io.example.build": "1"}
		envelope, _, err := producer.Sign(t.Context(), annotated, notation.SignerSignOptions{SignatureMediaType: mediaType})
		if err != nil {
			t.Fatal(err)
		}
		if got := accepted(t, roots(t, s), about(mediaType, envelope)); got.Identity != notationtest.Identity {
			t.Errorf("signed by %q", got.Identity)
		}
	})
}
