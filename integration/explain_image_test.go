package integration

import (
	"encoding/json"
	"maps"
	"path"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// within pushes an index that holds the other, under a tag.
func within(t *testing.T, reg *registry.Registry, tag string, index ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []ocispec.Descriptor{index},
	})
	if err != nil {
		t.Fatal(err)
	}
	desc, err := reg.PushManifest(testContext(t), "app", tag, ocispec.MediaTypeImageIndex, data)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

// What refers to the manifests of an index within the image's is explained, pulled,
// listed, printed and fetched as that of any other.
func TestImageOfNestedIndexes(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	root := within(t, reg, "nested", within(t, reg, "inner", f.Get(fixture.Image)))
	image := reg.Host + "/app:nested"
	d := startDaemon(t, active(rule(`artifact_types = ["all"]`, `required = ["signatures"]`)))

	e := explained(t, d, image)
	if e.Digest != root.Digest || e.Refused != "" || e.Stored {
		t.Errorf("explained is %+v", e)
	}
	asked, taken := map[string]bool{}, map[string]bool{}
	for _, s := range e.Subjects {
		asked[s.Digest.String()] = true
		for _, r := range s.Taken {
			taken[f.Name(r.Digest)] = true
		}
	}
	for _, name := range []string{fixture.Image, fixture.AMD64} {
		if !asked[f.Get(name).Digest.String()] {
			t.Errorf("%s is not explained", name)
		}
	}
	pull(t, d, image)
	read := ls(t, d, image)
	came := map[string]bool{}
	for _, name := range names(f, read.Referrers) {
		came[path.Base(name)] = true
	}
	if len(taken) == 0 || !maps.Equal(came, taken) {
		t.Errorf("stored are %v, explained were %v", came, taken)
	}
	for _, s := range read.Subjects {
		if !s.Checked.IsZero() && !asked[s.Digest.String()] {
			t.Errorf("the pull asked about %s, which was not explained", s.Digest)
		}
	}
	referrers(t, d, "cat", "--artifact-type", "application/spdx+json", image).want(t, 0).prints(t, "SPDX")
	referrers(t, d, "fetch", image).want(t, 0).prints(t, "linux/amd64 "+f.Get(fixture.AMD64).Digest.String()+": present")
}

// An image without a manifest for the platform, which containerd stores though it
// cannot be run, is not explained as one that a pull brings.
func TestExplainOfAPlatformThatTheImageLacks(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	for _, plugin := range []string{everything, strings.ReplaceAll(everything, `"**"`, `"other.example.com/**"`)} {
		d := startDaemon(t, active(plugin))
		r := referrers(t, d, "explain", "--platform", "linux/s390x", image).want(t, exitError,
			image+" has no manifest for linux/s390x: its index names linux/amd64, linux/arm64")
		if r.stdout != "" {
			t.Errorf("it prints %s", r.stdout)
		}
		referrers(t, d, "explain", "--platform", "linux/arm64", image).want(t, 0).prints(t, "a pull would succeed")
		wantClean(t, d)
	}
}
