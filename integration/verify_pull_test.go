package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// enforcing is a configuration that trusts a key, under the name release, and has a rule for
// all repositories that verifies by it.
func enforcing(t *testing.T, key []byte, lines ...string) daemon.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "release.pub")
	if err := os.WriteFile(path, key, 0o600); err != nil {
		t.Fatal(err)
	}
	return active(fmt.Sprintf(`
  [plugins."io.containerd.transfer.v1.referrers".trust.release]
    keys = [%q]
`, path) + verifying(append([]string{`verify = "enforce"`}, lines...)...))
}

// verifying is a rule for all repositories that asks for a signature by the trust release.
func verifying(lines ...string) string {
	return rule(lines...) + `
    [[plugins."io.containerd.transfer.v1.referrers".rules.signed]]
      by = ["release"]
`
}

// wantRefused checks that an image is refused before anything of it but manifests was fetched,
// and that nothing of it stays.
func wantRefused(t *testing.T, d *daemon.Daemon, reg *registry.Registry, image string, says ...string) {
	t.Helper()
	f := loadFixture(t)
	ruled{f.Get(fixture.Image), reg, image, f.Content(fixture.AMD64)[1:]}.refused(t, d, says...)
}

// A signed image is pulled, and verified from the store once the registry is gone; an image
// that is not signed by whom the rule names is refused before any layer is fetched.
func TestVerifiedPull(t *testing.T) {
	f := loadFixture(t)
	for _, kind := range []registry.Kind{registry.Olareg} {
		t.Run(string(kind), func(t *testing.T) {
			reg := startRegistry(t, kind)
			wholeFixture(f, t, reg)
			image := reg.Host + "/app:v1"
			d := startDaemon(t, enforcing(t, fixture.CosignKey))
			pull(t, d, image)
			reg.Fail(unreachable)
			referrers(t, d, "verify", image).want(t, 0).prints(t, "counted sigstore-bundle", "\nverified\n")
		})
	}
}

// An image that nobody signed whom the rule names has no layer fetched.
func TestRefusedPull(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, enforcing(t, otherKey(t)))
	wantRefused(t, d, reg, reg.Host+"/app:v1", "needs a signature by release", "sigstore-bundle sha256:")
}

// otherKey is a public key that signed nothing.
func otherKey(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}
