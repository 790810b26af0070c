package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
	reg.Reset()
	_, err := d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", image)
	wantError(t, err, append(says, "ctr: SignatureValidationFailed: image "+image+" is refused: ")...)
	layers := f.Content(fixture.AMD64)[1:] // its config and its layers
	for _, dgst := range layers {
		if n := reg.Count(dgst.String()); n > 0 {
			t.Errorf("%d requests for %s of an image that is refused", n, dgst)
		}
	}
	if out := ctr(t, d, "images", "ls", "-q"); out != "" {
		t.Errorf("there are image records: %s", out)
	}
	if out := ctr(t, d, "snapshots", "ls"); strings.Count(out, "\n") > 1 {
		t.Errorf("there are snapshots: %s", out)
	}
	collect(t, d)
	if left := contents(t, d); len(left) > 0 {
		t.Errorf("stored is %v after a pull that was refused", left)
	}
	wantClean(t, d)
	if n := len(d.LogLines("referrers: image refused")); n == 0 {
		t.Error("the log has no line of its own for the refusal")
	}
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
			reg.Fail(func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(http.StatusBadGateway)
				return true
			})
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
