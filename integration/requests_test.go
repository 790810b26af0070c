package integration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// counted returns how often each request was made, with its answer's code; digests
// of the fixture's manifests go by their names.
func counted(f *fixture.Fixture, reg *registry.Registry) map[string]int {
	out := map[string]int{}
	for _, r := range reg.Requests() {
		path := r.Path
		if at := strings.LastIndex(path, "sha256:"); at >= 0 {
			path = path[:at] + f.Name(digest.Digest(path[at:]))
		}
		out[fmt.Sprintf("%s %s %d", r.Method, path, r.Code)]++
	}
	return out
}

func wantRequests(t *testing.T, got, want map[string]int) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if got[key] != want[key] {
			t.Errorf("%d of %s, want %d", got[key], key, want[key])
		}
	}
	for key, n := range want {
		if got[key] == 0 {
			t.Errorf("0 of %s, want %d", key, n)
		}
	}
}

// blobs returns requests for all blobs of the entries, once each, but for the empty
// config.
func blobs(f *fixture.Fixture, entries ...string) map[string]int {
	out := map[string]int{}
	for _, e := range entries {
		for _, dgst := range f.Content(e)[1:] {
			if dgst != ocispec.DescriptorEmptyJSON.Digest {
				out["GET /v2/app/blobs/"+f.Name(dgst)+" 200"] = 1
			}
		}
	}
	return out
}

// Every request of a pull with its referrers: one token, one listing a subject, signatures
// among them since the rule names its depth, one GET for each manifest taken, one for each blob; and of the image itself no
// more than stock containerd makes.
func TestEveryRequestOfAPull(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg, registry.WithToken("user", "secret"))
	wholeFixture(f, t, reg)
	d := startDaemon(t, active("cosign_tags = \"never\"\n"+everything+"depth = 2\n"))
	image := reg.Host + "/app:v1"
	taken := []string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.SBOM, fixture.SBOMSignature, fixture.VEX}

	reg.Reset()
	pull(t, d, image, "--plain-http", "--skip-metadata", "-u", "user:secret")
	want := blobs(f, append(taken, fixture.AMD64)...)
	want["GET /v2/app/manifests/v1 401"] = 1
	want["POST /token 200"] = 1
	want["GET /v2/app/manifests/v1 200"] = 1 // what it names is not asked for again
	want["GET /v2/app/manifests/amd64 200"] = 1
	for _, name := range taken {
		want["GET /v2/app/manifests/"+name+" 200"] = 1
	}
	for _, subject := range append([]string{fixture.Image, fixture.AMD64}, taken...) {
		if subject != fixture.SBOMSignature { // the rule is two levels deep
			want["GET /v2/app/referrers/"+subject+" 200"] = 1
		}
	}
	wantRequests(t, counted(f, reg), want)

	// Of an image that is there a HEAD tells whether it changed. How the registry wants to
	// be asked, and this client's token, are remembered.
	reg.Reset()
	pull(t, d, image, "--plain-http", "--skip-metadata", "-u", "user:secret")
	again := map[string]int{"HEAD /v2/app/manifests/v1 200": 1}
	for key, n := range want {
		if strings.Contains(key, "/referrers/") {
			again[key] = n
		}
	}
	wantRequests(t, counted(f, reg), again)
}

// A listing costs one request a page, and brings no manifest that the policy does
// not choose.
func TestRequestsOfAListingInPages(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg, registry.WithPageSize(32<<10))
	imageAlone(f, t, reg)
	ctx, subject := testContext(t), f.Get(fixture.Image)
	const all, wanted = 400, 10
	for i := range all {
		artifactType := "application/vnd.example.other"
		if i%(all/wanted) == 0 {
			artifactType = "application/vnd.example.wanted"
		}
		if _, err := reg.Attach(ctx, "app", subject, artifactType, nil, fmt.Appendf(nil, "artifact %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	d := startDaemon(t, active(rule(`artifact_types = ["application/vnd.example.wanted"]`, `depth = 1`)))
	image := reg.Host + "/app:v1"
	reg.Reset()
	pull(t, d, image)
	if n := len(ls(t, d, image).Referrers); n != wanted {
		t.Errorf("%d referrers are stored, want %d", n, wanted)
	}
	pages, manifests, paths := 0, 0, map[string]int{}
	for _, r := range reg.Requests() {
		paths[r.Path]++
		switch {
		case strings.Contains(r.Path, "/referrers/"+subject.Digest.String()):
			pages++
		case strings.Contains(r.Path, "/manifests/sha256:"):
			manifests++
		}
	}
	if pages < 2 {
		t.Fatalf("%d pages: the test needs several", pages)
	}
	for path, n := range paths {
		if n != 1 && strings.Contains(path, "/referrers/") {
			t.Errorf("%s was asked for %d times", path, n)
		}
	}
	// Of the image: both platform manifests, since ctr asks for the metadata of all.
	if manifests != wanted+2 {
		t.Errorf("%d manifests were fetched, want %d", manifests, wanted+2)
	}
}

// A referrer's blob that several subjects share is fetched once, by one pull as by
// several at the same time.
func TestSharedContentIsFetchedOnce(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	imageAlone(f, t, reg)
	ctx, shared := testContext(t), []byte("an SBOM of both")
	for _, subject := range []string{fixture.Image, fixture.AMD64} {
		if _, err := reg.Attach(ctx, "app", f.Get(subject), "application/spdx+json", nil, shared); err != nil {
			t.Fatal(err)
		}
	}
	d := startDaemon(t, active(everything))
	reg.Reset()
	var wg sync.WaitGroup
	const pulls = 4
	for range pulls {
		wg.Go(func() {
			if _, err := d.Ctr(ctx, "images", "pull", "--platform", "linux/amd64", reg.Host+"/app:v1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := reg.Count("/blobs/" + digest.FromBytes(shared).String()); n != 1 {
		t.Errorf("the shared blob was fetched %d times", n)
	}
	for _, r := range ls(t, d, reg.Host+"/app:v1").Referrers {
		// A manifest is read before it is stored: pulls that race may cost one small GET each.
		if n := reg.Count("/manifests/" + r.Digest.String()); n < 1 || n > pulls {
			t.Errorf("the manifest of referrer %s was fetched %d times by %d pulls", r.Digest, n, pulls)
		}
	}
}
