package integration

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// A pull stores what the policy chooses of the index and of the platform that is
// pulled, and nothing else.
func TestPullStoresWhatPolicyChooses(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	for _, tc := range []struct {
		name, plugin string
		want         []string
	}{
		{"no rules: signatures and attestations of everything", "",
			[]string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation}},
		{"all, two levels deep", everything,
			[]string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.SBOM, fixture.SBOM + "/" + fixture.SBOMSignature, fixture.VEX}},
		{"all, one level deep", everything + "depth = 1\n",
			[]string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.SBOM, fixture.VEX}},
		{"attestations alone: the bundle's annotation decides", rule(`artifact_types = ["attestations"]`),
			[]string{fixture.CosignSBOM}},
		{"sboms and their signatures", rule(`artifact_types = ["sboms", "application/vnd.cncf.*"]`),
			[]string{fixture.Notation, fixture.SBOM, fixture.SBOM + "/" + fixture.SBOMSignature}},
		{"all but", rule(`artifact_types = ["!signatures", "all", "!vex/*"]`),
			[]string{fixture.CosignSBOM, fixture.SBOM}},
		{"required is taken as well", rule(`artifact_types = ["vex/openvex"]`, `required = ["application/spdx+json"]`),
			[]string{fixture.SBOM, fixture.VEX}},
		{"no rule matches", strings.ReplaceAll(everything, "**", "registry.example.com/**"), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := startDaemon(t, active(tc.plugin))
			pull(t, d, image)
			read := ls(t, d, image)
			wantNames(t, f, read, tc.want...)
			if want := labels.Present; tc.want != nil && read.Status != want {
				t.Errorf("status is %q, want %q", read.Status, want)
			}
			// ctr takes manifest and configuration of other platforms, and no layer.
			want := slices.Concat([]digest.Digest{f.Get(fixture.Image).Digest}, f.Content(fixture.AMD64), f.Content(fixture.ARM64)[:2])
			for _, name := range tc.want {
				want = append(want, f.Content(path.Base(name))...)
			}
			slices.Sort(want)
			if got := contents(t, d); !sameDigests(got, slices.Compact(want)) {
				t.Errorf("stored are\n%v\nwant the image's and the chosen referrers' content and nothing else:\n%v", got, slices.Compact(want))
			}
			wantClean(t, d)
		})
	}
}

// rule is a rule for all repositories with the given lines.
func rule(lines ...string) string {
	return `
  [[plugins."io.containerd.transfer.v1.referrers".rules]]
    repositories = ["**"]
` + strings.Join(lines, "\n") + "\n"
}

// Referrers live as long as their image: through collections and ctr's pruning
// while it is there, and not a moment longer.
func TestReferrersLiveAndDieWithTheImage(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	image := reg.Host + "/app:v1"
	pull(t, d, image)

	want := []string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.SBOM, fixture.SBOM + "/" + fixture.SBOMSignature, fixture.VEX}
	before := contents(t, d)
	collect(t, d)
	if after := contents(t, d); !sameDigests(before, after) {
		t.Errorf("a collection took content:\nbefore %v\nafter  %v", before, after)
	}
	if _, err := d.Ctr(testContext(t), "content", "prune", "references"); err != nil {
		t.Fatal(err)
	}
	wantNames(t, f, ls(t, d, image), want...)
	for _, name := range []string{fixture.CosignSignature, fixture.SBOM, fixture.SBOMSignature} {
		wantWhole(t, f, d, name)
	}
	if _, err := d.Ctr(testContext(t), "images", "rm", "--sync", image); err != nil {
		t.Fatal(err)
	}
	if left := contents(t, d); len(left) > 0 {
		t.Errorf("content was left after the image: %v", left)
	}
	wantClean(t, d)
}

func sameDigests(a, b []digest.Digest) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// wantWhole fails where the referrer's manifest or a blob of it is not stored.
func wantWhole(t *testing.T, f *fixture.Fixture, d *daemon.Daemon, name string) {
	t.Helper()
	have := contents(t, d)
	for _, dgst := range f.Content(name) {
		if !slices.Contains(have, dgst) {
			t.Errorf("%s: %s is not stored", name, dgst)
		}
	}
}
