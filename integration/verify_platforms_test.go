package integration

import (
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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

// Evidence on any index that leads to a manifest counts for it, and that of an index beside it
// does not.
func TestNestedIndexesAreVerified(t *testing.T) {
	key := sigstoretest.NewKey(t)
	f := loadFixture(t)
	for _, signs := range []string{"nested", "inner", "index", "manifest", "beside"} {
		t.Run(signs, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			index, amd64, _ := pushPlatforms(t, reg)
			inner := within(t, reg, "inner", index.Descriptor)
			root := within(t, reg, "nested", inner)
			beside := within(t, reg, "beside", root)
			for name, desc := range map[string]ocispec.Descriptor{"nested": root, "inner": inner, "index": index.Descriptor, "manifest": amd64.Descriptor, "beside": beside} {
				if name == signs {
					referBundle(t, reg, desc, sigstoretest.SignPredicateType, key.Signature(t, desc.Digest))
				}
			}
			image := ruled{root, reg, reg.Host + "/app:nested", f.Content(fixture.AMD64)[1:]}
			d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
			if signs == "beside" {
				image.refused(t, d, "nothing of the kind refers to it")
				return
			}
			image.verified(t, d)
		})
	}
}

// A manifest waits for what indexes beside it name, however deep, and not for ever.
func TestManifestBesideNestedIndexes(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	f := loadFixture(t)
	imageAlone(f, t, reg)
	deep := within(t, reg, "", within(t, reg, "", f.Get(fixture.Image)))
	beside := pushSmall(t, reg, "app", "", "beside")
	for tag, manifests := range map[string][]ocispec.Descriptor{"before": {beside.Descriptor, deep}, "behind": {deep, beside.Descriptor}} {
		t.Run(tag, func(t *testing.T) {
			root := put(t, reg, tag, ocispec.MediaTypeImageIndex, imageIndex(nil, manifests...))
			image := ruled{root, reg, reg.Host + "/app:" + tag, append(f.Content(fixture.AMD64)[1:], beside.content[1:]...)}
			d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
			image.refused(t, d)
			referBundle(t, reg, root, sigstoretest.SignPredicateType, key.Signature(t, root.Digest))
			image.verified(t, d)
		})
	}
}

// An index cannot call a manifest that can be run an attestation, or of no platform, to have it
// pulled unverified.
func TestManifestInDisguise(t *testing.T) {
	key := sigstoretest.NewKey(t)
	for name, disguise := range map[string]func(*ocispec.Descriptor){
		"of no platform": func(d *ocispec.Descriptor) { d.Platform = nil },
		"of an unknown platform": func(d *ocispec.Descriptor) {
			d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
		},
		"attestation that runs": func(d *ocispec.Descriptor) {
			d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": d.Digest.String()}
		},
		"attestation of no platform": func(d *ocispec.Descriptor) {
			d.Platform = nil
			d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
		},
		"attestation": func(d *ocispec.Descriptor) {
			d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
			d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			signed, evil := pushSmall(t, reg, "app", "", "signed"), pushSmall(t, reg, "app", "", "evil")
			referBundle(t, reg, signed.Descriptor, sigstoretest.SignPredicateType, key.Signature(t, signed.Digest))
			disguised := evil.Descriptor
			disguise(&disguised)
			d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
			for tag, manifests := range map[string][]ocispec.Descriptor{"alone": {disguised}, "beside": {signed.Descriptor, disguised}, "before": {disguised, signed.Descriptor}} {
				put(t, reg, tag, ocispec.MediaTypeImageIndex, imageIndex(nil, manifests...))
				image := ruled{reg: reg, name: reg.Host + "/app:" + tag, withheld: evil.content[2:]}
				reg.Reset()
				err := pullErr(t, d, image)
				image.wantWithheld(t) // its layer; metadata of other platforms may come
				if err != nil {
					continue
				}
				referrers(t, d, "verify", image.name).want(t, 0)
				if lost := damaged(t, d, evil.content[2:]); len(lost) == 0 {
					t.Errorf("%s: a layer of the manifest in disguise is stored", tag)
				}
			}
		})
	}
}

// Images of Docker's media types are verified as those of OCI's.
func TestDockerMediaTypesAreVerified(t *testing.T) {
	key := sigstoretest.NewKey(t)
	const manifestType, listType = "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"
	reg := startRegistry(t, registry.Olareg)
	small := pushSmall(t, reg, "app", "", "docker")
	data := manifestOf(t, reg, "app", small.Digest)
	for from, to := range map[string]string{
		ocispec.MediaTypeImageManifest: manifestType,
		ocispec.MediaTypeImageConfig:   "application/vnd.docker.container.image.v1+json",
		ocispec.MediaTypeImageLayer:    "application/vnd.docker.image.rootfs.diff.tar",
	} {
		data = strings.ReplaceAll(data, `"`+from+`"`, `"`+to+`"`)
	}
	manifest, err := reg.PushManifest(testContext(t), "app", "", manifestType, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	manifest.Platform = &amd64
	list := imageIndex(nil, manifest)
	list.MediaType = listType
	root := put(t, reg, "v1", listType, list)
	image := ruled{root, reg, reg.Host + "/app:v1", small.content[1:]}
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	image.refused(t, d)
	referBundle(t, reg, manifest, sigstoretest.SignPredicateType, key.Signature(t, manifest.Digest))
	image.verified(t, d)
}
