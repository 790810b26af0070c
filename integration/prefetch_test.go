package integration

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// A pull of an image that is there asks what its last pull asked while the tag is
// still being resolved: the answer for the tag comes only once all has been asked.
func TestPullAgainAsksAhead(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	image := reg.Host + "/app:v1"
	pull(t, d, image, "--plain-http", "--skip-metadata")
	before := ls(t, d, image)

	reg.Reset()
	// Of the index, the manifest and those of their referrers that are no signatures;
	// .sig and .att of the manifest. The index lists bundles, which spare it its tags.
	const listings, tags = 5, 2
	var asked atomic.Int32
	all := make(chan struct{})
	reg.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/manifests/v1"):
			select {
			case <-all:
			case <-time.After(20 * time.Second):
				t.Errorf("%d requests were made before the tag was resolved, want %d", asked.Load(), listings+tags)
			}
		case asked.Add(1) == listings+tags:
			close(all)
		}
		return false
	})
	pull(t, d, image, "--plain-http", "--skip-metadata")
	if n := len(reg.Requests()); n != 1+listings+tags {
		t.Errorf("%d requests, want %d: %v", n, 1+listings+tags, reg.Requests())
	}
	wantNames(t, f, ls(t, d, image), names(f, before.Referrers)...)
}

// Where the tag names another image by then, what was asked ahead says nothing of it.
func TestPullAgainOfATagThatMoved(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	image := reg.Host + "/app:v1"
	pull(t, d, image, "--plain-http")
	amd64 := f.Get(fixture.AMD64)
	amd64.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	amd64.Annotations = nil
	moved := put(t, reg, "v1", ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{amd64},
	})
	reg.Reset()
	pull(t, d, image, "--plain-http")
	read := ls(t, d, image)
	if index := read.Subjects[0]; index.Digest != moved.Digest || index.Status != "absent" {
		t.Errorf("stored is %s, %q; want %s, absent", index.Digest, index.Status, moved.Digest)
	}
	wantNames(t, f, read, fixture.SBOM, fixture.SBOM+"/"+fixture.SBOMSignature, fixture.VEX)
	for path, n := range counted(f, reg) {
		if n > 1 && strings.Contains(path, "/referrers/") {
			t.Errorf("%d of %s", n, path)
		}
	}
	wantClean(t, d)
}
