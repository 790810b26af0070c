package notation

import (
	"testing"

	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
)

// A rule governs a repository however a reference spells it; so must a statement: else the
// one for all others, which trusts more, judges the image.
func TestStatementGovernsEachSpelling(t *testing.T) {
	app, rest := newSigner(t), newSigner(t)
	forApp := strictPolicy(with("name", "app"), with("registryScopes", []string{"registry.example.com/app"}), with("trustStores", []string{"ca:app"}))
	forRest := strictPolicy(with("name", "rest"), with("trustStores", []string{"ca:rest"}))
	v := loadedDir(t, stored("ca", "app", app.RootPEM()), stored("ca", "rest", rest.RootPEM()), policyJSON(forRest, forApp))
	for _, repository := range []string{"registry.example.com/app", "registry.example.com:443/app", "REGISTRY.example.com/app", "registry.example.com./app"} {
		e := sign(t, rest, notationtest.COSE)
		e.Repository = repository
		if got, err := v.Verify(t.Context(), e); err == nil {
			t.Errorf("%s: %s is accepted, whom the statement for registry.example.com/app does not trust", repository, got.Identity)
		}
		e = sign(t, app, notationtest.COSE)
		e.Repository = repository
		if _, err := v.Verify(t.Context(), e); err != nil {
			t.Errorf("%s: %v", repository, err)
		}
	}
}
