package integration

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// forbiddenPlatform pushes an image without referrers to a registry that does not tell
// those of one platform.
func forbiddenPlatform(f *fixture.Fixture, t *testing.T, reg *registry.Registry) {
	imageAlone(f, t, reg)
	reg.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, "/referrers/"+f.Get(fixture.AMD64).Digest.String()) && registry.ReferrersFail(http.StatusForbidden)(w, r)
	})
}

// What a registry that fails does to a pull is the rule's to say, and "unknown"
// is never called "absent".
func TestRegistryThatFails(t *testing.T) {
	f := loadFixture(t)
	for _, tc := range []struct {
		name   string
		kind   registry.Kind
		code   int // of the referrers endpoint; 0 = as it is
		push   func(*fixture.Fixture, *testing.T, *registry.Registry)
		rule   []string
		status labels.Status // of the image; "" = the pull fails
		says   []string      // in the pull's error
	}{
		{name: "503, warn", code: 503, rule: []string{`artifact_types = ["signatures"]`, `on_error = "warn"`}, status: labels.Unknown},
		{name: "503, fail", code: 503, rule: []string{`artifact_types = ["signatures"]`, `on_error = "fail"`},
			says: []string{"could not be learnt", `on_error = "fail"`, "HTTP 503", "rule 1"}},
		{name: "503, required", code: 503, rule: []string{`required = ["signatures"]`},
			says: []string{"lacks referrers", "signatures", "HTTP 503", "rule 1"}},
		{name: "403, warn", code: 403, rule: []string{`artifact_types = ["signatures"]`}, status: labels.Unknown},
		{name: "429, warn", code: 429, rule: []string{`artifact_types = ["signatures"]`}, status: labels.Unknown},
		{name: "404 and no tag: absent", code: 404, rule: []string{`artifact_types = ["signatures"]`}, status: labels.Absent},
		{name: "404 and no tag, required", code: 404, rule: []string{`required = ["signatures"]`},
			says: []string{"lacks referrers", "signatures", "absent"}},
		{name: "listed, but none of the required type", rule: []string{`artifact_types = ["signatures"]`, `required = ["application/vnd.example.approval"]`},
			says: []string{"lacks referrers", "application/vnd.example.approval"}},
		{name: "no referrers at all, required", push: imageAlone, rule: []string{`required = ["signatures"]`},
			says: []string{"lacks referrers", "absent"}},
		{name: "no referrers at all", push: imageAlone, rule: []string{`artifact_types = ["signatures"]`}, status: labels.Absent},
		{name: "the index has none, the platform is a 403", push: forbiddenPlatform, rule: []string{`artifact_types = ["signatures"]`}, status: labels.Unknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := startRegistry(t, registry.Olareg)
			if tc.push == nil {
				tc.push = wholeFixture
			}
			tc.push(f, t, reg)
			if tc.code != 0 {
				reg.Fail(registry.ReferrersFail(tc.code))
			}
			d := startDaemon(t, active(rule(tc.rule...)))
			image := reg.Host + "/app:v1"
			_, err := d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", image)
			if tc.status != "" {
				if err != nil {
					t.Fatal(err)
				}
				read := ls(t, d, image)
				if read.Status != tc.status {
					t.Errorf("status is %q, want %q", read.Status, tc.status)
				}
				wantClean(t, d)
				return
			}
			if err == nil {
				t.Fatal("the pull succeeded")
			}
			for _, text := range append(tc.says, image) {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
			if _, err := d.Client.ImageService().Get(testContext(t), image); !errdefs.IsNotFound(err) {
				t.Errorf("an image record exists of a pull that failed: %v", err)
			}
			wantClean(t, d)
			collect(t, d)
			if left := contents(t, d); len(left) > 0 {
				t.Errorf("content was left: %v", left)
			}
		})
	}
}

func wholeFixture(f *fixture.Fixture, t *testing.T, reg *registry.Registry) {
	if err := f.Push(testContext(t), reg, "app", "v1"); err != nil {
		t.Fatal(err)
	}
}

func imageAlone(f *fixture.Fixture, t *testing.T, reg *registry.Registry) {
	if err := f.PushImage(testContext(t), reg, "app", "v1"); err != nil {
		t.Fatal(err)
	}
}

// A referrer whose blob cannot be had, or has wrong bytes, leaves no half of
// itself behind, and the subject's status tells. The next pull makes it good.
func TestReferrerThatCannotBeFetched(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(rule(`artifact_types = ["sboms"]`, "depth = 1")))
	image := reg.Host + "/app:v1"

	blob := f.Content(fixture.SBOM)[2]
	var wrong atomic.Bool
	reg.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/blobs/"+blob.String()) {
			return false
		}
		data, err := f.Blob(blob)
		if err != nil {
			t.Error(err)
		}
		if wrong.Load() {
			data[0] ^= 1 // the right length
			_, _ = w.Write(data)
		} else {
			w.WriteHeader(http.StatusForbidden)
		}
		return true
	})
	for _, bytes := range []bool{false, true} {
		wrong.Store(bytes)
		pull(t, d, image)
		read := ls(t, d, image)
		wantNames(t, f, read)
		if got := d.Status(t.Context(), f.Get(fixture.AMD64).Digest); got != string(labels.Unknown) {
			t.Errorf("status of the platform manifest is %q, want unknown", got)
		}
		wantClean(t, d)
	}
	reg.Fail(nil)
	pull(t, d, image)
	wantNames(t, f, ls(t, d, image), fixture.SBOM)
	wantWhole(t, f, d, fixture.SBOM)
}
