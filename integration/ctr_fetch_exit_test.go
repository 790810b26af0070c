package integration

import (
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// That there is nothing, that it is not known, and that nothing was asked are told
// apart.
func TestFetchExitCodes(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	imageAlone(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(rule(`artifact_types = ["sboms"]`)))
	pull(t, d, image)
	referrers(t, d, "fetch", image).want(t, exitNone, "knows of no referrers")
	reg.Fail(registry.ReferrersFail(500))
	referrers(t, d, "fetch", image).want(t, exitUnknown, "not known in full", "root "+f.Get(fixture.Image).Digest.String()+": unknown", "ctr referrers explain "+image)
	reg.Fail(nil)
	if err := f.PushReferrers(testContext(t), reg, "app"); err != nil {
		t.Fatal(err)
	}
	referrers(t, d, "fetch", "--artifact-type", "application/vnd.example.none", image).want(t, exitNone, "5 referrers", "takes none")
	referrers(t, d, "fetch", image).want(t, 0)

	d = startDaemon(t, active(strings.ReplaceAll(everything, "**", "registry.example.com/**")))
	pull(t, d, image)
	reg.Reset()
	referrers(t, d, "fetch", image).want(t, exitUnknown, "no registry was asked", "no rule matches", "--artifact-type").
		prints(t, "0 referrers are taken")
	if n := len(reg.Requests()); n != 0 {
		t.Errorf("the registry was asked: %v", reg.Requests())
	}
	if read := ls(t, d, image); read.Status != labels.Unknown {
		t.Errorf("status %s", read.Status)
	}
}

// Errors of a fetch say what to do.
func TestFetchErrors(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(everything))
	referrers(t, d, "fetch", image).want(t, exitError, image+" is not in namespace default", "ctr -n default images ls")
	pull(t, d, image)
	before := contents(t, d)
	for _, tc := range []struct {
		flags []string
		code  int
		says  []string
	}{
		{[]string{"--platform", "linux/s390x"}, exitError, []string{"no manifest", "linux/s390x", "pull the image for that platform"}},
		{[]string{"--platform", "no/such/platform/at/all"}, exitUsage, []string{"--platform"}},
		{[]string{"--platform", "linux/amd64", "--all-platforms"}, exitUsage, []string{"exclude each other"}},
		{[]string{"--artifact-type", "signature"}, exitUsage, []string{`"signature" is neither a media type nor a set`}},
		{[]string{"--depth", "9"}, exitUsage, []string{"write 1 to 8"}},
		{[]string{"--skip-verify"}, exitUsage, []string{"--hosts-dir"}},
		{[]string{"--format", "yaml"}, exitUsage, []string{`"text" or "json"`}},
		{[]string{"--quiet", "--format", "json"}, exitUsage, []string{"leave out --format"}},
		{[]string{"--no-such-flag"}, exitUsage, []string{"no-such-flag", "ctr referrers fetch --help"}},
		{[]string{"one", "two"}, exitUsage, []string{"one image at a time"}},
	} {
		referrers(t, d, append(append([]string{"fetch"}, tc.flags...), image)...).want(t, tc.code, tc.says...)
	}
	if !sameDigests(before, contents(t, d)) {
		t.Error("something was stored")
	}
	// Nothing can be tied to a manifest that was left in the registry.
	d = startDaemon(t, active(everything))
	pull(t, d, image, "--skip-metadata")
	referrers(t, d, "fetch", "--platform", "linux/arm64", image).want(t, exitError, "no manifest", "linux/arm64")
	referrers(t, d, "fetch", "--all-platforms", image).want(t, 0)
	wantClean(t, d)
	for name, disabled := range map[string][]string{"stock": nil, "service alone": {daemon.StockService}} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, daemon.Config{Disabled: disabled, MayFail: true})
			pull(t, d, image, "--local") // there may be no transfer service
			for _, command := range []string{"fetch", "explain"} {
				referrers(t, d, command, image).want(t, exitError, "the referrers plugin is not active on the daemon",
					`disabled_plugins = ["io.containerd.transfer.v1.local", "io.containerd.grpc.v1.transfer"]`)
			}
			wantClean(t, d)
		})
	}
}
