package integration

import (
	"testing"

	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// A fetch judges with the trusts of now: an image whose key is replaced leaves with the exit code
// of a refusal, and its referrers all the same; signed anew it is verified.
func TestFetchIsJudged(t *testing.T) {
	key, next := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	file := newKeyFile(t, key.PEM)
	d, image, _ := pulledSigned(t, file, key)
	referrers(t, d, "fetch", image.name).want(t, 0)
	file.write(t, next.PEM)
	referrers(t, d, "fetch", image.name).want(t, 6, "SignatureValidationFailed: ", "needs a signature by ci")
	signBundle(t, image, next)
	referrers(t, d, "fetch", image.name).want(t, 0)
	judged(t, d, image.name, 0)
	if n := len(ls(t, d, image.name).Referrers); n != 2 {
		t.Errorf("%d referrers are stored, want both signatures", n)
	}
}
