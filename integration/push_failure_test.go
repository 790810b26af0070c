package integration

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	client "github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// denied is a fault: requests of the method whose path has the substring get the code.
func denied(method, substring string, code int) registry.Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.Contains(r.URL.Path, substring) {
			return false
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(`{"errors":[{"code":"DENIED","message":"quota exceeded"}]}`))
		return true
	}
}

// A push that cannot carry a referrer fails, says what it is and that the image is
// there, and leaves the fallback tag as it was.
func TestPushFails(t *testing.T) {
	f := loadFixture(t)
	d, image := pulled(t, f, pushTrue)
	tag := client.FallbackTag(f.Get(fixture.Image).Digest)
	for _, tc := range []struct {
		name  string
		fault registry.Fault
		says  []string
	}{
		{"a manifest is refused", denied(http.MethodPut, f.Get(fixture.Notation).Digest.String(), http.StatusForbidden), []string{
			"referrer " + f.Get(fixture.Notation).Digest.String(), "application/vnd.cncf.notary.signature", "subject " + f.Get(fixture.Image).Digest.String(), "403 Forbidden", "quota exceeded"}},
		{"a blob is refused", denied(http.MethodHead, f.Content(fixture.Notation)[2].String(), http.StatusForbidden), []string{
			"referrer " + f.Get(fixture.Notation).Digest.String(), "blob " + f.Content(fixture.Notation)[2].String(), "403"}},
		{"the fallback tag cannot be read", denied(http.MethodGet, tag, http.StatusBadGateway), []string{
			"fallback tag " + tag, "not known", "502", f.Get(fixture.Image).Digest.String()}},
		{"the fallback tag cannot be read for want of rights", denied(http.MethodGet, tag, http.StatusUnauthorized), []string{
			"fallback tag " + tag, "401"}},
		{"the fallback tag cannot be written", denied(http.MethodPut, tag, http.StatusMethodNotAllowed), []string{
			"fallback tag " + tag, "405"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			to := startRegistry(t, registry.Distribution)
			to.Fail(tc.fault)
			err := pushAs(t, d, image, to.Host+"/app:v1")
			wantError(t, err, append(tc.says, "image "+to.Host+"/app:v1 has been pushed, but not all of its referrers", "push again", "push = false")...)
			fetched(t, to, "manifests", f.Get(fixture.Image).Digest)
			if n := to.Count("PUT /v2/app/manifests/" + tag); n > 0 && !strings.Contains(tc.name, "written") {
				t.Errorf("the fallback tag was written %d times", n)
			}
			// Once that is mended a push has the rest, and the listing.
			to.Fail(nil)
			if err := pushAs(t, d, image, to.Host+"/app:v1"); err != nil {
				t.Fatal(err)
			}
			wantPullable(t, f, to.Host+"/app:v1", all...)
		})
	}
}

// imageUnder puts an image under a tag that is meant for something else.
func imageUnder(f *fixture.Fixture, t *testing.T, reg *registry.Registry, tag string) {
	t.Helper()
	imageAlone(f, t, reg)
	data, err := f.Blob(f.Get(fixture.ARM64).Digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.PushManifest(testContext(t), "app", tag, ocispec.MediaTypeImageManifest, data); err != nil {
		t.Fatal(err)
	}
}

// A fallback tag that holds an image is not overwritten, though distribution says 404
// to who accepts none.
func TestPushKeepsAnImageUnderTheFallbackTag(t *testing.T) {
	f := loadFixture(t)
	d, image := pulled(t, f, pushTrue)
	to := startRegistry(t, registry.Distribution)
	tag := client.FallbackTag(f.Get(fixture.Image).Digest)
	imageUnder(f, t, to, tag)
	wantError(t, pushAs(t, d, image, to.Host+"/app:v1"), tag, "holds no index", "not overwritten")
	if n := to.Count("PUT /v2/app/manifests/" + tag); n != 0 {
		t.Error("the tag was overwritten")
	}
}

// What cosign v2 stored under tags goes under the same tags; one that holds something
// else stays as it is.
func TestPushCosignTags(t *testing.T) {
	f := loadFixture(t)
	from := startRegistry(t, registry.Olareg)
	imageAlone(f, t, from)
	if err := f.PushCosignTags(testContext(t), from, "app"); err != nil {
		t.Fatal(err)
	}
	legacy := []string{fixture.LegacySignature, fixture.LegacyAttestation, fixture.LegacySBOM}
	d := startDaemon(t, active(pushTrue))
	image := from.Host + "/app:v1"
	ctr(t, d, "images", "pull", "--plain-http", "--all-platforms", image)
	wantNames(t, f, ls(t, d, image), legacy...)
	for _, kind := range registry.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			to := startRegistry(t, kind)
			as := to.Host + "/app:v1"
			if err := pushAs(t, d, image, as); err != nil {
				t.Fatal(err)
			}
			wantPullable(t, f, as, legacy...)
			for _, name := range legacy {
				if e := f.Get(name); to.Count("PUT /v2/app/manifests/"+e.Annotations[fixture.AnnotationTag]) != 1 {
					t.Errorf("%s did not go under its tag", name)
				}
			}
			to.Reset()
			if err := pushAs(t, d, image, as); err != nil {
				t.Fatal(err)
			}
			if again := sent(to); len(again) > 0 {
				t.Errorf("the second push sends %q", again)
			}
		})
	}
	t.Run("a tag that holds something else", func(t *testing.T) {
		to := startRegistry(t, registry.Distribution)
		tag := f.Get(fixture.LegacySignature).Annotations[fixture.AnnotationTag]
		imageUnder(f, t, to, tag)
		wantError(t, pushAs(t, d, image, to.Host+"/app:v1"), "tag "+tag+" holds something else", "not overwritten", f.Get(fixture.LegacySignature).Digest.String())
		if n := to.Count("PUT /v2/app/manifests/" + tag); n != 0 {
			t.Error("the tag was overwritten")
		}
	})
}

// A referrer whose content was removed from the store is named, with the remedy.
func TestPushOfWhatIsNotWhole(t *testing.T) {
	f := loadFixture(t)
	d, image := pulled(t, f, pushTrue)
	to := startRegistry(t, registry.Olareg)
	gone := f.Content(fixture.SBOM)[2]
	if err := d.Client.ContentStore().Delete(testContext(t), gone); err != nil {
		t.Fatal(err)
	}
	wantError(t, pushAs(t, d, image, to.Host+"/app:v1"), f.Get(fixture.SBOM).Digest.String(), gone.String()+" is not stored", "pull the image again")
	if n := to.Count("PUT /v2/app/manifests/" + f.Get(fixture.SBOM).Digest.String()); n != 0 {
		t.Error("its manifest was pushed all the same")
	}
}

// A push that selects, or must carry, referrers is refused before the image where
// the daemon cannot.
func TestPushNeedsThePlugin(t *testing.T) {
	f := loadFixture(t)
	for _, tc := range []struct {
		name     string
		disabled []string
		command  string
		says     string
	}{
		{"stock", nil, "referrers", "the push selects referrers, but the referrers plugin is not active"},
		{"service alone", []string{daemon.StockService}, "referrers", "the referrers plugin is not active on the daemon"},
		{"local alone", []string{daemon.StockTransfer}, "images", transferAlone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from, to := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
			imageAlone(f, t, from)
			d := startDaemon(t, daemon.Config{Disabled: tc.disabled, Plugin: "push = true\n", MayFail: true})
			image := from.Host + "/app:v1"
			pull(t, d, image, "--local") // there may be no transfer service
			ctr(t, d, "images", "tag", "--local", image, to.Host+"/app:v1")
			_, err := d.Ctr(testContext(t), tc.command, "push", "--platform", "linux/amd64", to.Host+"/app:v1")
			wantError(t, err, tc.says)
			if slices.ContainsFunc(to.Requests(), func(r registry.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }) {
				t.Errorf("something was pushed: %v", to.Requests())
			}
		})
	}
}
