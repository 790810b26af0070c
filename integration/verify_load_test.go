package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// A daemon whose trusts or rules cannot be meant pulls nothing, and says what to write.
func TestTrustsThatCannotBeMeant(t *testing.T) {
	key := trustFile(t, sigstoretest.NewKey(t).PEM)
	empty, dir := trustFile(t, nil), t.TempDir()
	vendor := newVendor(t)
	enforcing := rule(`verify = "enforce"`) + signedBy(`by = ["ci"]`)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	for name, tc := range map[string]struct{ plugin, says string }{
		"no such trust":        {enforcing, `by names "ci", which is no trust`},
		"no such file":         {trustOf("ci", fmt.Sprintf("keys = [%q]", filepath.Join(dir, "none"))) + enforcing, "no such file"},
		"empty file":           {trustOf("ci", fmt.Sprintf("keys = [%q]", empty)) + enforcing, "is empty"},
		"directory":            {trustOf("ci", fmt.Sprintf("keys = [%q]", dir)) + enforcing, "is a directory: name the files in it"},
		"anybody with a token": {trustOf("ci", fmt.Sprintf("trusted_root = [%q]", key)) + enforcing, "trusted_root without identities"},
		"more than there are":  {trustOf("ci", fmt.Sprintf("keys = [%q]", key)) + rule(`verify = "enforce"`) + signedBy(`by = ["ci"]`, "at_least = 2"), "at_least = 2, and the trusts that by names have 1"},
		"verify of nothing":    {trustOf("ci", fmt.Sprintf("keys = [%q]", key)) + rule(`verify = "enforce"`), "is there without signed or attested"},
		"signed for nothing":   {trustOf("ci", fmt.Sprintf("keys = [%q]", key)) + rule() + signedBy(`by = ["ci"]`), "verify: is missing"},
		"notation that attests": {trustedVendor(t, "ci", vendor) + rule(`verify = "enforce"`) + attestedBy(`predicate_type = "x"`, `by = ["ci"]`),
			"signatures attest nothing"},
		"unknown key": {trustOf("ci", fmt.Sprintf("key = [%q]", key)) + enforcing, "unknown key"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, daemon.Config{Disabled: daemon.Active, Plugin: tc.plugin, MayFail: true})
			if lines := d.LogLines("failed to load plugin"); !strings.Contains(unquoted(strings.Join(lines, "\n")), tc.says) {
				t.Errorf("the log does not say %q but\n%s", tc.says, unquoted(strings.Join(lines, "\n")))
			}
			if err := pullErr(t, d, image); err == nil {
				t.Error("the pull succeeded")
			}
			image.wantWithheld(t)
		})
	}
}

// One line of the log answers whether the daemon enforces, and by whom.
func TestActiveLineTellsWhatIsEnforced(t *testing.T) {
	key := sigstoretest.NewKey(t)
	trusts := trustedKeys(t, "ci", key.PEM) + trustedVendor(t, "vendor", newVendor(t))
	d := startDaemon(t, active(trusts+rule(`verify = "enforce"`, `required = ["sboms"]`)+signedBy(`by = ["ci"]`)+
		rule(`verify = "warn"`)+signedBy(`by = ["vendor"]`)+rule("deny = true")))
	lines := strings.Join(d.LogLines("referrers are active"), "\n")
	for _, says := range []string{"rules: 3 (require: 1, verify with enforce: 1, verify with warn: 1, deny: 1)", "ci (keys, sha256:", "vendor (notation, sha256:"} {
		if !strings.Contains(lines, says) {
			t.Errorf("it does not say %q: %s", says, lines)
		}
	}
	if lines := strings.Join(startDaemon(t, active("")).LogLines("referrers are active"), "\n"); !strings.Contains(lines, "no rules configured, built-in rule") {
		t.Errorf("without rules it says %s", lines)
	}
}

// With signed_repository a signature counts under the name that was signed and no other: a
// copy elsewhere does not verify.
func TestSignedRepository(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	trusts := trustedKeys(t, "ci", key.PEM)
	bound := signedBy(`by = ["ci"]`, "signed_repository = true")
	attested := attestedBy(`predicate_type = "`+slsa1+`"`, `by = ["ci"]`, "signed_repository = true")
	for tag, tc := range map[string]struct {
		entry string
		sign  func(t *testing.T, image digest.Digest, name string) sigstoretest.Layer
		as    string // suffix of the tag
	}{
		"signature": {bound, func(t *testing.T, image digest.Digest, name string) sigstoretest.Layer {
			return key.CosignSignature(t, name, image)
		}, ".sig"},
		"attestation": {attested, func(t *testing.T, image digest.Digest, name string) sigstoretest.Layer {
			return key.CosignAttestation(t, name, image, slsa1, map[string]any{})
		}, ".att"},
	} {
		t.Run(tag, func(t *testing.T) {
			image := pushRuled(t, reg, tag)
			d := startDaemon(t, enforced(trusts, tc.entry))
			tagLayers(t, reg, image.Digest, tc.as, tc.sign(t, image.Digest, "registry.example.com/app"))
			image.refused(t, d, "signed it under the name")
			tagLayers(t, reg, image.Digest, tc.as, tc.sign(t, image.Digest, reg.Host+"/app"))
			image.verified(t, d)
		})
	}
	t.Run("bundle", func(t *testing.T) { // names no repository
		image := pushRuled(t, reg, "bundle")
		signBundle(t, image, key)
		image.refused(t, startDaemon(t, enforced(trusts, bound)), "signed it under the name")
		image.verified(t, startDaemon(t, enforced(trusts, signedBy(`by = ["ci"]`))))
	})
}
