package integration

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// A signed image crosses an air gap: from a registry with the referrers API to a
// node, as an archive to another, from there to a registry without the API, and on
// to a third node. What refers to it is the same on each, byte for byte, and cosign
// verifies its signature at both registries.
func TestAirGap(t *testing.T) {
	f := loadFixture(t)
	outside, inside := startRegistry(t, registry.Olareg), startRegistry(t, registry.Distribution)
	wholeFixture(f, t, outside)
	from, to := outside.Host+"/app:v1", inside.Host+"/mirrored/app:v1"
	both := []string{"--platform", "linux/amd64", "--platform", "linux/arm64"}
	with := func(args []string, more ...string) []string { return append(slices.Concat(args, both), more...) }
	archive := filepath.Join(t.TempDir(), "image.tar")

	first := startDaemon(t, active(everything))
	ctr(t, first, with([]string{"images", "pull"}, from)...)
	export(t, first, archive, with(nil, archive, from)...)

	second := startDaemon(t, active("push = true\n"+everything))
	ctr(t, second, "images", "import", "--all-platforms", archive)
	ctr(t, second, "images", "tag", from, to)
	ctr(t, second, with([]string{"images", "push", "--plain-http"}, to)...)

	third := startDaemon(t, active(everything))
	ctr(t, third, with([]string{"images", "pull"}, to)...)

	wantTree, wantContent := names(f, ls(t, first, from).Referrers), referrerContent(t, first, "default", from)
	if !slices.Contains(wantTree, fixture.CosignSignature) || !slices.Contains(wantTree, fixture.SBOMARM64) {
		t.Fatalf("the first node has only %q", wantTree)
	}
	for _, node := range []struct {
		name, image string
		d           *daemon.Daemon
	}{{"second", from, second}, {"third", to, third}} {
		if got := names(f, ls(t, node.d, node.image).Referrers); !slices.Equal(got, wantTree) {
			t.Errorf("the %s node has\n %q, the first\n %q", node.name, got, wantTree)
		}
		if got := referrerContent(t, node.d, "default", node.image); !maps.Equal(got, wantContent) {
			t.Errorf("the %s node's content is not the first's", node.name)
		}
	}

	key := filepath.Join(t.TempDir(), "cosign.pub")
	if err := os.WriteFile(key, fixture.CosignKey, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, repository := range []string{outside.Host + "/app", inside.Host + "/mirrored/app"} {
		tool(t, t.TempDir(), "cosign", "verify", "--key", key, "--insecure-ignore-tlog", "--allow-http-registry",
			repository+"@"+f.Get(fixture.Image).Digest.String())
	}
}
