package artifact

import (
	"bytes"
	_ "crypto/sha512" // go-digest knows only what is linked in
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	good := digest.FromString("good")
	const limit = 1000
	for _, tc := range []struct {
		name   string
		digest digest.Digest
		size   int64
		want   func(error) bool // nil: none
	}{
		{"sha256", good, 1, nil},
		{"sha384", digest.SHA384.FromString("good"), 1, nil},
		{"sha512", digest.SHA512.FromString("good"), 1, nil},
		{"exactly the limit", good, limit, nil},
		{"a path for a digest", "../../../_catalog", 1, errdefs.IsInvalidArgument},
		{"a path after the algorithm", "sha256:../../../../_catalog", 1, errdefs.IsInvalidArgument},
		{"a query after the algorithm", "sha256:..?x", 1, errdefs.IsInvalidArgument},
		{"a query after the hash", good + "?x=1", 1, errdefs.IsInvalidArgument},
		{"a path after the hash", good + "/../x", 1, errdefs.IsInvalidArgument},
		{"a fragment after the hash", good + "#x", 1, errdefs.IsInvalidArgument},
		{"a line after the hash", good + "\n", 1, errdefs.IsInvalidArgument},
		{"empty digest", "", 1, errdefs.IsInvalidArgument},
		{"no hash", "sha256:", 1, errdefs.IsInvalidArgument},
		{"no algorithm", digest.Digest(":" + good.Encoded()), 1, errdefs.IsInvalidArgument},
		{"no colon", digest.Digest(good.Encoded()), 1, errdefs.IsInvalidArgument},
		{"short hash", good[:len(good)-1], 1, errdefs.IsInvalidArgument},
		{"long hash", good + "0", 1, errdefs.IsInvalidArgument},
		{"upper case", digest.Digest("sha256:" + strings.ToUpper(good.Encoded())), 1, errdefs.IsInvalidArgument},
		{"no hexadecimals", digest.Digest("sha256:" + strings.Repeat("g", 64)), 1, errdefs.IsInvalidArgument},
		{"an algorithm that nobody verifies", digest.Digest("md5:" + strings.Repeat("0", 32)), 1, errdefs.IsInvalidArgument},
		{"size -1", good, -1, errdefs.IsInvalidArgument},
		{"size 0", good, 0, errdefs.IsInvalidArgument},
		{"the least size", good, math.MinInt64, errdefs.IsInvalidArgument},
		{"one over the limit", good, limit + 1, errdefs.IsResourceExhausted},
		{"size 2^62", good, 1 << 62, errdefs.IsResourceExhausted},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := Check(ocispec.Descriptor{Digest: tc.digest, Size: tc.size}, limit)
			if tc.want == nil && err != nil || tc.want != nil && !tc.want(err) {
				t.Errorf("digest %q of size %d: %v", tc.digest, tc.size, err)
			}
		})
	}
}

// The digest is checked before the limit, the types whatever the size.
func TestCheckOfTypes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", MaxTypeLength)
	for _, tc := range []struct {
		name                    string
		mediaType, artifactType string
		ok                      bool
	}{
		{"none", "", "", true},
		{"as long as they may be", long, long, true},
		{"a longer media type", long + "x", "", false},
		{"a longer artifact type", "", long + "x", false},
	} {
		err := Check(ocispec.Descriptor{MediaType: tc.mediaType, ArtifactType: tc.artifactType, Digest: digest.FromString("x"), Size: 1}, 1)
		if tc.ok && err != nil || !tc.ok && (!errdefs.IsInvalidArgument(err) || len(err.Error()) > 200) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// What is refused is quoted, and short.
func TestCheckQuotesWhatItRefuses(t *testing.T) {
	t.Parallel()
	err := Check(ocispec.Descriptor{Digest: digest.Digest("sha256:\x1b[2J" + strings.Repeat("x", 1<<20)), Size: 1}, 1)
	if err == nil || len(err.Error()) > 200 || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%.300q", err)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	desc := ocispec.Descriptor{MediaType: manifestType, Digest: digest.FromString("content"), Size: int64(len("content"))}
	if err := Verify([]byte("content"), desc); err != nil {
		t.Error(err)
	}
	for _, wrong := range []string{"", "content and more", "CONTENT"} {
		if err := Verify([]byte(wrong), desc); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%q: %v, want errdefs.ErrFailedPrecondition", wrong, err)
		}
	}
}

func TestVerifyDigest(t *testing.T) {
	t.Parallel()
	for _, dgst := range []digest.Digest{digest.FromString("content"), digest.SHA384.FromString("content"), digest.SHA512.FromString("content")} {
		if err := VerifyDigest([]byte("content"), dgst); err != nil {
			t.Error(err)
		}
		for _, wrong := range []string{"", "content and more", "CONTENT"} {
			if err := VerifyDigest([]byte(wrong), dgst); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("%s of %q: %v, want errdefs.ErrFailedPrecondition", dgst.Algorithm(), wrong, err)
			}
		}
	}
}

// A field that is new to descriptors must not be passed on before somebody has looked at
// it.
func TestPlain(t *testing.T) {
	t.Parallel()
	full := ocispec.Descriptor{
		MediaType: "text/spdx", Digest: digest.FromString("x"), Size: 1, URLs: []string{"http://169.254.169.254/"}, Annotations: map[string]string{"a": "b"},
		Data: []byte("x"), Platform: &ocispec.Platform{OS: "linux"}, ArtifactType: "text/sbom",
	}
	for value, i := reflect.ValueOf(full), 0; i < value.NumField(); i++ {
		if value.Field(i).IsZero() {
			t.Errorf("the test leaves out the field %s", value.Type().Field(i).Name)
		}
	}
	if got, want := Plain(full), (ocispec.Descriptor{MediaType: "text/spdx", Digest: full.Digest, Size: 1}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestIsEmpty(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		digest digest.Digest
		size   int64
		want   bool
	}{
		{"sha256 of nothing", digest.FromString(""), 0, true},
		{"sha384 of nothing", digest.SHA384.FromString(""), 0, true},
		{"sha512 of nothing", digest.SHA512.FromString(""), 0, true},
		{"of a size", digest.FromString(""), 1, false},
		{"of a negative size", digest.FromString(""), -1, false},
		{"of something that claims no size", digest.FromString("x"), 0, false},
		{"of no digest", "", 0, false},
		{"of a digest that is none", "sha256:..?x", 0, false},
		{"of an algorithm that nobody verifies", "md5:d41d8cd98f00b204e9800998ecf8427e", 0, false},
	} {
		if got := IsEmpty(ocispec.Descriptor{Digest: tc.digest, Size: tc.size}); got != tc.want {
			t.Errorf("%s: %t, want %t", tc.name, got, tc.want)
		}
	}
}

func TestInline(t *testing.T) {
	t.Parallel()
	of := func(content string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString(content), Size: int64(len(content))}
	}
	with := func(d ocispec.Descriptor, data string) ocispec.Descriptor {
		d.Data = []byte(data)
		return d
	}
	sized := func(d ocispec.Descriptor, size int64) ocispec.Descriptor {
		d.Size = size
		return d
	}
	for _, tc := range []struct {
		name string
		desc ocispec.Descriptor
		want []byte // nil for none
	}{
		{"its content", with(of("content"), "content"), []byte("content")},
		{"none", of("content"), nil},
		{"other content of the same size", with(of("content"), "CONTENT"), nil},
		{"a part", with(of("content"), "conten"), nil},
		{"more", with(of("content"), "content "), nil},
		{"its content, of another size", sized(with(of("content"), "content"), 8), nil},
		{"of no digest", with(ocispec.Descriptor{Size: 1}, "x"), nil},
		{"of a digest that is none", with(ocispec.Descriptor{Digest: "sha256:..?x", Size: 1}, "x"), nil},
		{"the empty object, without data", of("{}"), []byte("{}")},
		{"the empty object, with a lie", with(of("{}"), "[]"), []byte("{}")},
		{"the empty object, of another size", sized(of("{}"), 3), nil},
		{"nothing", of(""), []byte{}},
		{"nothing, with a lie", with(of(""), "x"), []byte{}},
		{"something that claims no size", sized(of("x"), 0), nil},
	} {
		before := bytes.Clone(tc.desc.Data)
		if got := Inline(tc.desc); !bytes.Equal(got, tc.want) || (got == nil) != (tc.want == nil) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
		if !bytes.Equal(before, tc.desc.Data) {
			t.Errorf("%s: the descriptor was changed", tc.name)
		}
	}
}

func TestKindsOfMediaTypes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		mediaType       string
		manifest, index bool
	}{
		{manifestType, true, false},
		{images.MediaTypeDockerSchema2Manifest, true, false},
		{MediaTypeArtifactManifest, true, false},
		{indexType, false, true},
		{images.MediaTypeDockerSchema2ManifestList, false, true},
		{"", false, false},
		{strings.ToUpper(manifestType), false, false},
		{manifestType + "; charset=utf-8", false, false},
		{ocispec.MediaTypeImageConfig, false, false},
		{ocispec.MediaTypeEmptyJSON, false, false},
		{"application/vnd.docker.distribution.manifest.v1+prettyjws", false, false},
	} {
		if IsManifest(tc.mediaType) != tc.manifest || IsIndex(tc.mediaType) != tc.index || IsReferrer(tc.mediaType) != (tc.manifest || tc.index) {
			t.Errorf("%q: manifest %t, index %t, referrer %t", tc.mediaType, IsManifest(tc.mediaType), IsIndex(tc.mediaType), IsReferrer(tc.mediaType))
		}
	}
}
