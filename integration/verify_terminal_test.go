//go:build linux

package integration

import (
	"testing"

	"strings"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// On a terminal a pull shows who signed the image.
func TestTerminalShowsSigners(t *testing.T) {
	key := sigstoretest.NewKey(t)
	s := sigstoretest.New(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	signBundle(t, image, key)
	referBundle(t, reg, image.Descriptor, sigstoretest.SignPredicateType, s.Signature(t, image.Digest, ciIdentity, ciIssuer))
	d := startDaemon(t, enforced(trustedKeys(t, "release", key.PEM)+trustedCI(t, "ci", s), signedBy(`by = ["release", "ci"]`, "at_least = 2")))
	out := ctrOnTerminal(t, d, "images", "pull", image.name)
	for _, want := range []string{"verified: " + keyIdentity(t, key.PEM)[:20], "verified: " + ciIdentity[:20]} {
		if !strings.Contains(out, want) {
			t.Errorf("the terminal does not show %q but\n%q", want, out)
		}
	}
}
