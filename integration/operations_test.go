package integration

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// Operations that the plugin does not change work through it as they do without:
// push, export, import, tag.
func TestOtherOperations(t *testing.T) {
	f := loadFixture(t)
	from := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, from)
	both(t, func(t *testing.T, d *daemon.Daemon, _ bool) {
		to := startRegistry(t, registry.Olareg) // holds nothing yet
		image, tagged := from.Host+"/app:v1", to.Host+"/app:v2"
		archive := filepath.Join(t.TempDir(), "image.tar")
		ctr(t, d, "images", "pull", "--all-platforms", "--plain-http", image)
		ctr(t, d, "images", "tag", image, tagged)
		ctr(t, d, "images", "push", "--plain-http", tagged)
		wantPushed(t, f, to, "v2")

		export(t, d, archive, "--all-platforms", archive, tagged)
		ctr(t, d, "images", "rm", "--sync", image, tagged)
		if n := len(contents(t, d)); n != 0 {
			t.Errorf("%d blobs are left", n)
		}
		ctr(t, d, "images", "import", "--all-platforms", archive)
		if out := ctr(t, d, "images", "ls", "-q"); !slices.Contains(strings.Fields(out), tagged) {
			t.Errorf("the archive does not hold %s: %s", tagged, out)
		}
		have := contents(t, d)
		for _, dgst := range imageContent(f) {
			if !slices.Contains(have, dgst) {
				t.Errorf("%s did not come back with the archive", dgst)
			}
		}
	})
}

// imageContent is all of the fixture's image, without its referrers.
func imageContent(f *fixture.Fixture) []digest.Digest {
	return slices.Concat([]digest.Digest{f.Get(fixture.Image).Digest}, f.Content(fixture.AMD64), f.Content(fixture.ARM64))
}

// wantPushed fails where the registry does not serve the whole image as app, byte by
// byte and under the tag, or was sent a manifest that is not the image's.
func wantPushed(t *testing.T, f *fixture.Fixture, reg *registry.Registry, tag string) {
	t.Helper()
	manifests := []digest.Digest{f.Get(fixture.Image).Digest, f.Get(fixture.AMD64).Digest, f.Get(fixture.ARM64).Digest}
	for _, dgst := range imageContent(f) {
		kind := "blobs"
		if slices.Contains(manifests, dgst) {
			kind = "manifests"
		}
		if got := digest.FromBytes(fetched(t, reg, kind, dgst)); got != dgst {
			t.Errorf("the registry serves %s as %s", got, dgst)
		}
	}
	if got := digest.FromBytes(fetched(t, reg, "manifests", tag)); got != manifests[0] {
		t.Errorf("the registry serves %s under the tag, want the index %s", got, manifests[0])
	}
	if n := reg.Count("PUT /v2/app/manifests/"); n != len(manifests) {
		t.Errorf("%d manifests were pushed, want the image's %d alone", n, len(manifests))
	}
}
