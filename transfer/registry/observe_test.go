package registry

import (
	"net/url"
	"testing"
)

func TestOperation(t *testing.T) {
	for path, want := range map[string]Operation{
		"/v2/app/referrers/sha256:00":           OpReferrers,
		"/v2/app/manifests/sha256-00":           OpTag,
		"/v2/app/manifests/sha256-00.sig":       OpTag,
		"/v2/app/manifests/sha256:00":           OpManifest,
		"/v2/manifests/blobs/sha256:00":         OpBlob,
		"/prefix/v2/a/blobs/manifests/sha512:0": OpManifest,
		"/v2/blobs/referrers/sha256:00":         OpReferrers,
		"/next":                                 OpReferrers,
		"":                                      OpReferrers,
	} {
		if got := operation(&url.URL{Path: path}); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}
