package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// What a referrer holds comes out as it is stored; which one is never guessed.
func TestCat(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(everything))
	pull(t, d, image)
	sbom := f.Get(fixture.SBOM).Digest
	content, err := f.Blob(f.Content(fixture.SBOM)[2])
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := f.Blob(sbom)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{image, sbom.String()},
		{"--digest", sbom.String(), image},
		{"--artifact-type", "sboms", image},
		{"--artifact-type", "application/spdx*", image},
		{"--artifact-type", "sboms", "--layer", "0", image},
		{"--artifact-type", "sboms", "--artifact-type", "!text/*", image, sbom.String()},
	} {
		if r := referrers(t, d, append([]string{"cat"}, args...)...).want(t, 0); r.stdout != string(content) {
			t.Errorf("cat %q prints %q, want %q", args, r.stdout, content)
		}
	}
	if r := referrers(t, d, "cat", "--manifest", image, sbom.String()).want(t, 0); r.stdout != string(manifest) {
		t.Errorf("the manifest is printed as %q, want %q", r.stdout, manifest)
	}
	r := referrers(t, d, "cat", "--artifact-type", "signatures", image).want(t, exitAmbiguous, "3 referrers of image "+image, "ctr referrers cat "+image+" sha256:",
		f.Get(fixture.CosignSignature).Digest.String(), f.Get(fixture.SBOMSignature).Digest.String(), "refers to "+sbom.String())
	if r.stdout != "" {
		t.Errorf("one was guessed: %s", r.stdout)
	}
	referrers(t, d, "cat", image).want(t, exitAmbiguous, "6 referrers")
	for _, tc := range []struct {
		args []string
		code int
		says []string
	}{
		{[]string{"--artifact-type", "application/vnd.example.none", image}, exitNone, []string{"no referrer that is application/vnd.example.none"}},
		{[]string{image, digest.FromString("none").String()}, exitNone, []string{"no referrer that is sha256:"}},
		{[]string{"--artifact-type", "sboms", "--layer", "1", image}, exitNone, []string{"no such layer among its 1"}},
		{[]string{"--artifact-type", "sboms", "--media-type", "text/none", image}, exitNone, []string{"no such layer"}},
		{[]string{image, sbom.Encoded()[:12]}, exitUsage, []string{"is no digest", "ctr referrers ls"}},
		{[]string{"--digest", sbom.String(), image, sbom.String()}, exitUsage, []string{"one too many"}},
		{[]string{"--manifest", "--layer", "0", image}, exitUsage, []string{"--manifest prints no layer"}},
		{[]string{"--artifact-type", "sbom", image}, exitUsage, []string{"neither a media type nor a set"}},
	} {
		if r := referrers(t, d, append([]string{"cat"}, tc.args...)...).want(t, tc.code, tc.says...); r.stdout != "" {
			t.Errorf("%q prints %q", tc.args, r.stdout)
		}
	}
	reg.Fail(registry.ReferrersFail(403))
	pull(t, d, image)
	referrers(t, d, "cat", "--artifact-type", "application/vnd.example.none", image).want(t, exitUnknown, "ctr referrers fetch "+image)
}

// Of an artifact with several layers one is chosen, or all are listed.
func TestCatLayers(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	ctx := testContext(t)
	subject := f.Get(fixture.AMD64)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example.report", Config: ocispec.DescriptorEmptyJSON,
		Subject: &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
	}
	for _, text := range []string{"first", "second", "third"} {
		mediaType := "text/plain"
		if text == "third" {
			mediaType = "text/html\x1b[31m"
		}
		if _, err := reg.PushBlob(ctx, "app", []byte(text)); err != nil {
			t.Fatal(err)
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(text), Size: int64(len(text))})
	}
	report := put(t, reg, "", ocispec.MediaTypeImageManifest, m)
	m.ArtifactType, m.Layers = "application/vnd.example.bare", []ocispec.Descriptor{}
	bare := put(t, reg, "", ocispec.MediaTypeImageManifest, m)
	index := put(t, reg, "", ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, ArtifactType: "application/vnd.example.index",
		Manifests: []ocispec.Descriptor{}, Subject: m.Subject,
	})
	d := startDaemon(t, active(everything))
	pull(t, d, image)

	cat := func(args ...string) ran {
		return referrers(t, d, append([]string{"cat"}, append(args, image, report.Digest.String())...)...)
	}
	r := cat().want(t, exitAmbiguous, "3 layers", "  0 text/plain "+digest.FromString("first").String()+" (5.0 B)", "--layer or --media-type")
	if r.stdout != "" || strings.Contains(r.stderr, "\x1b") || !strings.Contains(r.stderr, "  2 text/html?[31m ") {
		t.Errorf("it prints %q and %q", r.stdout, r.stderr)
	}
	cat("--media-type", "text/plain").want(t, exitAmbiguous, "2 layers")
	for want, args := range map[string][]string{
		"second": {"--layer", "1"}, "first": {"--layer", "0", "--media-type", "Text/Plain"}, "third": {"--media-type", "text/html\x1b[31m"},
	} {
		if got := cat(args...).want(t, 0).stdout; got != want {
			t.Errorf("cat %q prints %q", args, got)
		}
	}
	referrers(t, d, "cat", image, bare.Digest.String()).want(t, exitNone, "has no layers", "--manifest")
	referrers(t, d, "cat", image, index.Digest.String()).want(t, exitNone, "is an index", "--manifest")
	if got := referrers(t, d, "cat", "--manifest", image, index.Digest.String()).want(t, 0).stdout; !json.Valid([]byte(got)) {
		t.Errorf("the index is printed as %q", got)
	}
}

// Content that is damaged in the store does not pass for what it was.
func TestCatDamaged(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(everything))
	pull(t, d, image)
	content := f.Content(fixture.SBOM)
	path := func(dgst digest.Digest) string {
		return filepath.Join(d.Dir, "root/io.containerd.content.v1.content/blobs/sha256", dgst.Encoded())
	}
	damage := func(dgst digest.Digest) {
		t.Helper()
		data, err := f.Blob(dgst)
		if err != nil {
			t.Fatal(err)
		}
		data = []byte(strings.Replace(string(data), "a", "b", 1)) // the right length
		if err := os.WriteFile(path(dgst), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage(content[2])
	referrers(t, d, "cat", image, content[0].String()).want(t, exitError, content[2].String(), "damaged", "do not use what was printed")
	damage(content[0])
	referrers(t, d, "cat", image, content[0].String()).want(t, exitError, content[0].String())
	referrers(t, d, "cat", "--manifest", image, content[0].String()).want(t, exitError, "damaged")
	signature := f.Content(fixture.Notation)
	if err := d.Client.ContentStore().Delete(testContext(t), signature[2]); err != nil {
		t.Fatal(err)
	}
	referrers(t, d, "cat", image, signature[0].String()).want(t, exitError, "not in the content store any more", "ctr referrers fetch "+image)
	// The SBOM, whose manifest is damaged, is no part of what is known now.
	referrers(t, d, "fetch", image).want(t, exitUnknown)
	referrers(t, d, "cat", image, signature[0].String()).want(t, 0)
}
