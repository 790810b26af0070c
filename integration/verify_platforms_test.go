package integration

import (
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// pushPlatforms puts the fixture's image, for two platforms and without referrers, and
// returns its index and manifests as subjects that can be signed.
func pushPlatforms(t *testing.T, reg *registry.Registry) (index, amd64, arm64 ruled) {
	t.Helper()
	f := loadFixture(t)
	imageAlone(f, t, reg)
	of := func(name string) ruled {
		var withheld = f.Content(fixture.AMD64)[1:]
		if name == fixture.ARM64 {
			withheld = f.Content(fixture.ARM64)[1:]
		}
		return ruled{f.Get(name), reg, reg.Host + "/app:v1", withheld}
	}
	return of(fixture.Image), of(fixture.AMD64), of(fixture.ARM64)
}

// An image that is signed for one platform only is pulled for that one, and refused for the
// other and for both.
func TestHalfSignedIsRefused(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	index, amd64, arm64 := pushPlatforms(t, reg)
	signBundle(t, amd64, key)
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	refused := []string{"ctr: SignatureValidationFailed: image " + index.name + " is refused: ", "(linux/arm64)"}
	sets := [][]string{
		{"--all-platforms"},
		{"--platform", "linux/amd64", "--platform", "linux/arm64"},
		{"--platform", "linux/arm64", "--platform", "linux/amd64"},
		{"--platform", "linux/arm64"},
	}
	for _, flags := range sets {
		reg.Reset()
		_, err := d.Ctr(testContext(t), append(append([]string{"images", "pull"}, flags...), index.name)...)
		wantError(t, err, refused...)
		amd64.wantWithheld(t)
		arm64.wantWithheld(t)
		collect(t, d)
		wantNothing(t, d)
	}
	index.verified(t, d)
	referrers(t, d, "verify", "--platform", "linux/arm64", index.name).want(t, exitRefused, "(linux/arm64)")

	signBundle(t, arm64, key)
	for _, flags := range sets {
		ctr(t, d, append(append([]string{"images", "pull"}, flags...), index.name)...)
	}
	referrers(t, d, "verify", "--all-platforms", index.name).want(t, 0).prints(t, "linux/amd64 ", "linux/arm64 ", "\nverified\n")
}

// Evidence on a manifest and on the index above it counts together, by key and not by
// signature.
func TestSignersAreCountedOnce(t *testing.T) {
	first, second := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	for _, tc := range []struct {
		name     string
		onIndex  []*sigstoretest.Key
		onAMD64  []*sigstoretest.Key
		onARM64  []*sigstoretest.Key
		succeeds bool
	}{
		{"one on the index, one on the manifest", []*sigstoretest.Key{first}, []*sigstoretest.Key{second}, nil, true},
		{"both on the index", []*sigstoretest.Key{first, second}, nil, nil, true},
		{"both on the manifest", nil, []*sigstoretest.Key{first, second}, nil, true},
		{"one twice", []*sigstoretest.Key{first}, []*sigstoretest.Key{first}, nil, false},
		{"one twice on the manifest", nil, []*sigstoretest.Key{first, first}, nil, false},
		{"the other on another manifest", []*sigstoretest.Key{first}, nil, []*sigstoretest.Key{second}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			index, amd64, arm64 := pushPlatforms(t, reg)
			for image, keys := range map[*ruled][]*sigstoretest.Key{&index: tc.onIndex, &amd64: tc.onAMD64, &arm64: tc.onARM64} {
				for _, key := range keys {
					signBundle(t, *image, key)
				}
			}
			d := startDaemon(t, enforced(trustedKeys(t, "first", first.PEM)+trustedKeys(t, "second", second.PEM),
				signedBy(`by = ["first", "second"]`, "at_least = 2")))
			if !tc.succeeds {
				index.refused(t, d, "needs 2 signatures by first or second", "1 counts")
				return
			}
			index.verified(t, d, keyIdentity(t, first.PEM), keyIdentity(t, second.PEM))
		})
	}
}

// A trust that is written twice, under two names, is one signer; and each entry of a rule
// must hold.
func TestEachEntryMustHold(t *testing.T) {
	key, other := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	signBundle(t, image, key)
	d := startDaemon(t, enforced(trustedKeys(t, "release", key.PEM)+trustedKeys(t, "review", other.PEM),
		signedBy(`by = ["release"]`), signedBy(`by = ["review"]`)))
	image.refused(t, d, "needs a signature by review")
	signBundle(t, image, other)
	image.verified(t, d)
}
