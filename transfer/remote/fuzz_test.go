package remote

import (
	"net/url"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{"", "0", "120", "-1", "1e9", "99999999999999999999", "Wed, 21 Oct 2026 07:28:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		f.Add(value)
	}
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		if got := retryAfter(value, now); got < 0 {
			t.Errorf("%q: %s, want no time in the past", value, got)
		}
	})
}

// FuzzDigest holds what Check is for: what it lets through makes a URL and a tag
// that name the digest and nothing else.
func FuzzDigest(f *testing.F) {
	for _, d := range []digest.Digest{
		digest.FromString("x"), digest.SHA384.FromString("x"), digest.SHA512.FromString("x"),
		"", ":", "sha256", "sha256:", "sha256:..?x", "../../../_catalog", "sha256:00", "sha256+b64u:x",
	} {
		f.Add(string(d), int64(1))
	}
	r := &Repository{name: "test/app"}
	h := &Host{RegistryHost: docker.RegistryHost{Scheme: "https", Host: "r.test", Path: "/v2"}}
	f.Fuzz(func(t *testing.T, value string, size int64) {
		const limit = 1 << 20
		d := digest.Digest(value)
		err := Check(ocispec.Descriptor{Digest: d, Size: size}, limit)
		if err == nil && (size < 1 || size > limit) {
			t.Errorf("size %d passed", size)
		}
		if d.Validate() != nil {
			if err == nil {
				t.Errorf("digest %q passed", value)
			}
			return
		}
		u, err := url.Parse(r.URL(h, "manifests", value).String())
		if err != nil || u.Host != "r.test" || u.Path != "/v2/test/app/manifests/"+value || u.Fragment != "" {
			t.Errorf("%q makes the address %s (%v)", value, u, err)
		}
		if tag := FallbackTag(d); !tagGrammar.MatchString(tag) {
			t.Errorf("%q: %q is no tag", value, tag)
		}
	})
}
