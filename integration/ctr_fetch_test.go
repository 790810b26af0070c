package integration

import (
	"encoding/json"
	"strings"
	"testing"

	clabels "github.com/containerd/containerd/v2/pkg/labels"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// An image that was signed after it was pulled gets its signatures without another
// pull: at the digest that is stored, though the tag has moved, and under its own name.
func TestFetch(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg, registry.WithToken("user", "secret"))
	imageAlone(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(everything))
	pull(t, d, image, "--plain-http", "-u", "user:secret")
	if read := ls(t, d, image); read.Status != labels.Absent {
		t.Fatalf("before the fetch: %+v", read)
	}
	if err := f.PushReferrers(testContext(t), reg, "app"); err != nil {
		t.Fatal(err)
	}
	arm := f.Get(fixture.ARM64)
	manifest, err := f.Blob(arm.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.PushManifest(testContext(t), "app", "v1", arm.MediaType, manifest); err != nil {
		t.Fatal(err)
	}
	reg.Reset()
	out := referrers(t, d, "fetch", "--plain-http", "-u", "user:secret", image).want(t, 0)
	out.prints(t, image+" "+f.Get(fixture.Image).Digest.String(), "take  "+f.Get(fixture.Notation).Digest.String(), "6 referrers are taken, and stored with the image")
	for _, part := range []string{"/manifests/v1", "/manifests/" + f.Get(fixture.Image).Digest.String(), "/manifests/" + f.Get(fixture.AMD64).Digest.String()} {
		if n := reg.Count(part); n != 0 {
			t.Errorf("the image itself was asked for: %v", reg.Requests())
		}
	}
	wantClean(t, d)
	collect(t, d)
	read := ls(t, d, image)
	wantNames(t, f, read, fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.SBOM, fixture.SBOM+"/"+fixture.SBOMSignature, fixture.VEX)
	if read.Status != labels.Present || read.Digest != f.Get(fixture.Image).Digest {
		t.Errorf("the image is %s, %s", read.Digest, read.Status)
	}
	for _, name := range []string{fixture.CosignSignature, fixture.SBOM} {
		wantWhole(t, f, d, name)
		info, err := d.Client.ContentStore().Info(testContext(t), f.Get(name).Digest)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Labels[clabels.LabelDistributionSource+".127.0.0.1"]; got != "app" {
			t.Errorf("%s came from %q: %v", name, got, info.Labels)
		}
	}
	for _, line := range d.LogLines("referrers: gathered") {
		if strings.Contains(line, image+"@") {
			t.Errorf("the log names the image otherwise: %s", line)
		}
	}
	// Once more, all is there.
	referrers(t, d, "fetch", "-q", "--plain-http", "-u", "user:secret", image).want(t, 0)
	if n := reg.Count("GET /v2/app/blobs/"); n == 0 {
		t.Error("the first fetch asked for no blob")
	}
	reg.Reset()
	r := referrers(t, d, "fetch", "--format", "json", "--plain-http", "-u", "user:secret", image).want(t, 0)
	var e explain.Explanation
	if err := json.Unmarshal([]byte(r.stdout), &e); err != nil || e.Image != image || len(e.Subjects) == 0 {
		t.Errorf("%v in %s", err, r.stdout)
	}
	if n := reg.Count("GET /v2/app/blobs/"); n != 0 {
		t.Errorf("what is there was fetched again: %v", reg.Requests())
	}
}

// The flags choose what is fetched, and for which platforms.
func TestFetchSelects(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	for _, tc := range []struct {
		name  string
		flags []string
		want  []string
	}{
		{"a type", []string{"--artifact-type", "vex/openvex"}, []string{fixture.VEX}},
		{"the rule's depth", []string{"--artifact-type", "all"}, []string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.SBOM, fixture.VEX}},
		{"no more than the rule's depth", []string{"--artifact-type", "sboms", "--artifact-type", "signatures", "--depth", "2"}, []string{fixture.CosignSignature, fixture.Notation, fixture.SBOM}},
		{"less than the rule's depth", []string{"--artifact-type", "sboms", "--artifact-type", "signatures", "--depth", "1"}, []string{fixture.CosignSignature, fixture.Notation, fixture.SBOM}},
		{"another platform", []string{"--artifact-type", "sboms", "--platform", "linux/arm64"}, []string{fixture.SBOMARM64}},
		{"all platforms", []string{"--artifact-type", "sboms", "--all-platforms"}, []string{fixture.SBOM, fixture.SBOMARM64}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ruleDepth := "depth = 1"
			if strings.Contains(tc.name, "less than") {
				ruleDepth = "depth = 2"
			}
			d := startDaemon(t, active(strings.ReplaceAll(rule(`artifact_types = ["!text/plain"]`, ruleDepth), `"!text/plain"`, ``)))
			pull(t, d, image)
			wantNames(t, f, ls(t, d, image))
			referrers(t, d, append(append([]string{"fetch"}, tc.flags...), image)...).want(t, 0)
			wantNames(t, f, ls(t, d, image), tc.want...)
		})
	}
}

// Of an image that is there a fetch loses nothing: what the rule requires, a registry
// that fails and a rule that prunes decide on the exit code alone.
func TestFetchKeeps(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(rule(`artifact_types = ["all"]`, `required = ["application/vnd.cncf.notary.signature"]`, "prune = true")))
	pull(t, d, image)
	before := names(f, ls(t, d, image).Referrers)

	late, err := reg.Attach(testContext(t), "app", f.Get(fixture.Image), "application/vnd.example.late", nil, []byte("late"))
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.DeleteManifest(testContext(t), "app", f.Get(fixture.Notation).Digest); err != nil {
		t.Fatal(err)
	}
	referrers(t, d, "fetch", image).want(t, exitRefused, "what came is stored", "lacks referrers", "rule 1", "application/vnd.cncf.notary.signature")
	collect(t, d)
	read := ls(t, d, image)
	if !has(read, late) || !has(read, f.Get(fixture.Notation)) {
		t.Errorf("late %v, notation %v", has(read, late), has(read, f.Get(fixture.Notation)))
	}
	if got := referrers(t, d, "ls", image).want(t, 0); strings.Count(got.stdout, "no longer listed since") != 1 {
		t.Errorf("what is no longer listed is not marked:\n%s", got.stdout)
	}

	reg.Fail(registry.ReferrersFail(403))
	referrers(t, d, "fetch", "--format", "json", image).want(t, exitRefused, "HTTP 403")
	read = ls(t, d, image)
	if read.Status != labels.Unknown {
		t.Errorf("status %s", read.Status)
	}
	wantNames(t, f, read, append(before, late.Digest.String())...)
	wantClean(t, d)
}
