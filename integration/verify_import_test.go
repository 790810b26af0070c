package integration

import (
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// An archive brings an image under a ruled name only with the evidence for it: what it carries
// itself is enough, by the trust of the node that imports.
func TestImportIsVerified(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	signed, foreign, unsigned := pushRuled(t, reg, "signed"), pushRuled(t, reg, "foreign"), pushRuled(t, reg, "unsigned")
	tagged := pushRuled(t, reg, "tagged")
	signBundle(t, signed, key)
	signBundle(t, foreign, stranger)
	tagLayers(t, reg, tagged.Digest, ".sig", key.CosignSignature(t, reg.Host+"/app", tagged.Digest))
	outside := startDaemon(t, active(everything))
	node := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	for _, tc := range []struct {
		image   ruled
		refused bool
	}{{unsigned, true}, {foreign, true}, {signed, false}, {tagged, false}} {
		pull(t, outside, tc.image.name)
		path := exportedFrom(t, outside, tc.image.name)
		_, err := node.Ctr(testContext(t), "images", "import", "--platform", "linux/amd64", path)
		switch {
		case tc.refused:
			wantError(t, err, "ctr: SignatureValidationFailed: image "+tc.image.name+" is refused: ", "needs a signature by ci")
			if out := ctr(t, node, "images", "ls", "-q"); strings.Contains(out, tc.image.name) {
				t.Errorf("there is a record of an image that is refused: %s", out)
			}
			collect(t, node)
			wantNothing(t, node)
		case err != nil:
			t.Error(err)
		default:
			referrers(t, node, "verify", tc.image.name).want(t, 0)
		}
	}
	if n := len(node.LogLines("referrers: image refused")); n != 2 {
		t.Errorf("the log has %d lines for 2 refusals", n)
	}
}

// Names that no rule verifies are imported as ever; a rule that warns says so.
func TestImportUnderOtherRules(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	outside := startDaemon(t, active(everything))
	pull(t, outside, image.name)
	path := exportedFrom(t, outside, image.name)
	for name, tc := range map[string]struct {
		rules string
		lines int
		fails bool
	}{
		"warn":         {rule(`verify = "warn"`) + signedBy(`by = ["ci"]`), 1, false},
		"another name": {strings.ReplaceAll(rule(`verify = "enforce"`), `"**"`, `"example.com/**"`) + signedBy(`by = ["ci"]`), 0, false},
		"deny":         {rule("deny = true"), 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			trusts := trustedKeys(t, "ci", key.PEM)
			d := startDaemon(t, active(trusts+tc.rules))
			_, err := d.Ctr(testContext(t), "images", "import", "--platform", "linux/amd64", path)
			if tc.fails {
				wantError(t, err, "ctr: SignatureValidationFailed: ", "deny = true")
			} else if err != nil {
				t.Fatal(err)
			}
			if lines := d.LogLines("lets it be stored"); len(lines) != tc.lines {
				t.Errorf("the log says %q", lines)
			}
		})
	}
}
