package registry

import (
	"math"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{"", "0", "120", "-1", "1e9", "99999999999999999999", "Wed, 21 Oct 2026 07:28:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		f.Add(value)
	}
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	r := &Repository{limits: DefaultLimits}
	f.Fuzz(func(t *testing.T, value string) {
		if got := retryAfter(value, now); got < 0 {
			t.Errorf("%q: %s, want no time in the past", value, got)
		}
		// Whatever a registry asks for, a request waits within its own limits.
		for _, attempt := range []int{1, 2, 5, 100, math.MaxInt} {
			got := r.wait(attempt, &http.Response{Header: http.Header{"Retry-After": {value}}})
			if most := max(r.limits.RetryAfter, r.limits.Backoff<<10); got < 0 || got > most {
				t.Errorf("%q, attempt %d: waits %s, want %s at most", value, attempt, got, most)
			}
		}
	})
}

// FuzzChallenge holds what checkChallenge is for, with containerd's own authorizer:
// a challenge that passes sends no one to a token service without encryption, or at
// a link-local address.
func FuzzChallenge(f *testing.F) {
	for _, value := range []string{
		`Bearer realm="https://tokens.test/token",service="s",scope="repository:a:pull"`,
		`bearer realm="HTTP://tokens.test/token"`,
		`Bearer realm="https://169.254.169.254/latest"`,
		`Bearer realm="https://[::ffff:169.254.169.254]/"`,
		`Bearer realm="https://0xa9fea9fe/",error="invalid_token"`,
		`Bearer realm="//tokens.test"`, `Basic realm="r"`, `Bearer realm=`, `Bearer realm="\"`, `,=;"`,
	} {
		f.Add(value)
	}
	from := &http.Request{URL: &url.URL{Scheme: "https", Host: "r.test", Path: "/v2/a"}}
	f.Fuzz(func(t *testing.T, value string) {
		resp := &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {value}}, Request: from}
		if err := checkChallenge(resp); err != nil {
			if !errdefs.IsPermissionDenied(err) || len(err.Error()) > 1000 {
				t.Errorf("%q: error %q", value, err)
			}
			return
		}
		authorizer := withSession(docker.RegistryHost{}, &http.Client{Transport: encryptedOnly{t, value}}, nil).Authorizer
		if authorizer.AddResponses(t.Context(), []*http.Response{resp}) == nil {
			_ = authorizer.Authorize(t.Context(), from.Clone(t.Context())) // the transport refuses
		}
	})
}

// encryptedOnly fails where a token service is asked that must not be.
type encryptedOnly struct {
	t     *testing.T
	value string
}

func (e encryptedOnly) RoundTrip(req *http.Request) (*http.Response, error) {
	if ip := net.ParseIP(req.URL.Hostname()); req.URL.Scheme == "http" || ip.IsLinkLocalUnicast() {
		e.t.Errorf("%q leads to %s", e.value, req.URL)
	}
	return nil, errdefs.ErrUnavailable
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
		err := artifact.Check(ocispec.Descriptor{Digest: d, Size: size}, limit)
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
