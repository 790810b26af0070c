package notation

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/notaryproject/notation-core-go/signature"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
)

// FuzzEnvelope holds that bytes of the network prove what the signer signed, or nothing, and
// that a refusal is of a kind the interface has and fit to be printed. The root is made at
// each start, so that inputs in the corpus are signed by strangers.
func FuzzEnvelope(f *testing.F) {
	s, stranger := newSigner(f), newSigner(f)
	clock := newAuthority(f, s.Leaf.NotBefore, "http://127.0.0.1:1")
	verifiers := []trust.Verifier{roots(f, s), loadedDir(f, stampedFiles(s, clock, "always")...)}
	for i, mediaType := range formats {
		for _, signer := range []*notationtest.Signer{s, stranger} {
			f.Add(sign(f, signer, mediaType).Data, i == 1)
			f.Add(sign(f, signer, mediaType, func(r *signature.SignRequest) {
				r.ExtendedSignedAttributes = []signature.Attribute{{Key: "io.cncf.notary.verificationPlugin", Critical: true, Value: "plugin"}}
			}).Data, i == 1)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, cose bool) {
		mediaType := notationtest.JWS
		if cose {
			mediaType = notationtest.COSE
		}
		for _, v := range verifiers {
			got, err := v.Verify(t.Context(), about(mediaType, data))
			if err == nil {
				if got.Kind != evidence.Signature || got.Identity != notationtest.Identity || len(got.Notes) != 1 {
					t.Errorf("proves %+v", got)
				}
				continue
			}
			if !errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrPermissionDenied) {
				t.Errorf("refused with %v", err)
			}
			if len(err.Error()) > 1800 || strings.ContainsFunc(err.Error(), func(r rune) bool { return !strconv.IsPrint(r) }) {
				t.Errorf("refused with %q", err)
			}
		}
	})
}

// BenchmarkVerify is what one signature costs a pull.
func BenchmarkVerify(b *testing.B) {
	rsa := must[*notationtest.Signer](b)(notationtest.NewRSA())
	for name, s := range map[string]*notationtest.Signer{"ECDSA": newSigner(b), "RSA": rsa} {
		v := roots(b, s)
		for _, mediaType := range formats {
			e := sign(b, s, mediaType)
			b.Run(name+"/"+mediaType, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := v.Verify(b.Context(), e); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
