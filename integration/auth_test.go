package integration

import (
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// The whole pull, image and referrers, makes one token request, and asks once a
// subject.
func TestOneTokenAndOneListingASubject(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg, registry.WithToken("user", "secret"))
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	image := reg.Host + "/app:v1"
	pull(t, d, image, "--plain-http", "-u", "user:secret")

	if n := reg.Count("/token"); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
	asked := map[string]int{}
	for _, r := range reg.Requests() {
		if strings.Contains(r.Path, "/referrers/") {
			asked[r.Path]++
		}
	}
	for path, n := range asked {
		if n != 1 {
			t.Errorf("%s was asked %d times", path, n)
		}
	}
	// The index and the platform manifest, and each referrer of theirs that is no signature.
	if want := 2 + 3; len(asked) != want {
		t.Errorf("%d subjects were asked about, want %d: %v", len(asked), want, asked)
	}
	if t.Failed() {
		for _, r := range reg.Requests() {
			t.Log(r)
		}
	}
}

// A token that is revoked while referrers come in costs one more for them and one for the
// image, whose requests have nothing of what ours are told, and nothing else.
func TestTokenRunsOutHalfWay(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg, registry.WithToken("user", "secret"))
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	image := reg.Host + "/app:v1"
	reg.Fail(reg.RevokeOnce("/referrers/"))
	pull(t, d, image, "--plain-http", "-u", "user:secret")
	if n := reg.Count("/token"); n != 3 {
		t.Errorf("%d token requests, want 3", n)
	}
	if n := len(ls(t, d, image).Referrers); n != 5 {
		t.Errorf("%d referrers are stored, want 5", n)
	}
}

func TestWrongCredentialsFailThePull(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg, registry.WithBasic("user", "secret"))
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	image := reg.Host + "/app:v1"
	if _, err := d.Ctr(testContext(t), "images", "pull", "--plain-http", "-u", "user:wrong", image); err == nil {
		t.Error("the pull succeeded with a wrong password")
	}
	pull(t, d, image, "--plain-http", "-u", "user:secret")
	if n := len(ls(t, d, image).Referrers); n != 5 {
		t.Errorf("%d referrers are stored, want 5", n)
	}
}
