package registry

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// descriptor describes a manifest of the given content.
func descriptor(content string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(content), Size: int64(len(content))}
}

// tagGrammar is the grammar of tags (OCI distribution-spec, "Pulling manifests").
var tagGrammar = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

func TestFallbackTag(t *testing.T) {
	sha256, sha384, sha512 := digest.FromString("x"), digest.SHA384.FromString("x"), digest.SHA512.FromString("x")
	for subject, want := range map[digest.Digest]string{
		sha256: "sha256-" + sha256.Encoded(),
		sha384: "sha384-" + sha384.Encoded()[:64],
		sha512: "sha512-" + sha512.Encoded()[:64],
	} {
		got := FallbackTag(subject)
		if got != want {
			t.Errorf("%s: %s, want %s", subject, got, want)
		}
		if !tagGrammar.MatchString(got) {
			t.Errorf("%s: %s is no tag", subject, got)
		}
	}
}

func TestManifest(t *testing.T) {
	const text = `{"schemaVersion":2}`
	honest := hostile.Content(ocispec.MediaTypeImageManifest, []byte(text))
	for _, tc := range []struct {
		name     string
		answers  []hostile.Answer
		want     func(error) bool // nil: none
		requests int
	}{
		{"honest", []hostile.Answer{honest}, nil, 1},
		{"503, then honest", []hostile.Answer{hostile.Status(503), honest}, nil, 2},
		{"wrong bytes of the right length", []hostile.Answer{hostile.Content("", []byte(strings.ToUpper(text)))}, errdefs.IsFailedPrecondition, 1},
		{"too short", []hostile.Answer{hostile.Content("", []byte(text[1:]))}, errdefs.IsFailedPrecondition, 1},
		{"too long", []hostile.Answer{hostile.Content("", []byte(text+"\n"))}, errdefs.IsFailedPrecondition, 1},
		{"endless body", []hostile.Answer{{Body: make([]byte, 64<<10), Endless: true}}, errdefs.IsResourceExhausted, 1},
		{"404", []hostile.Answer{hostile.Status(404)}, errdefs.IsNotFound, 1},
		{"401", []hostile.Answer{hostile.Status(401)}, errdefs.IsUnauthorized, 1},
		{"403", []hostile.Answer{hostile.Status(403)}, errdefs.IsPermissionDenied, 1},
		{"429 for ever", []hostile.Answer{hostile.Status(429)}, errdefs.IsUnavailable, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, desc := hostile.New(t), descriptor(text)
			s.On("/v2/test/app/manifests/"+desc.Digest.String(), tc.answers...)
			data, err := alone(t, s, quick).Manifest(t.Context(), desc)
			switch {
			case tc.want == nil && (err != nil || string(data) != text):
				t.Errorf("%q, %v, want the manifest", data, err)
			case tc.want != nil && (!tc.want(err) || data != nil):
				t.Errorf("%q, %v", data, err)
			}
			if got := len(s.Requests()); got != tc.requests {
				t.Errorf("%d requests, want %d", got, tc.requests)
			}
			if got := s.Requests()[0].Header.Get("Accept"); got != desc.MediaType+", "+AcceptAny {
				t.Errorf("Accept: %q, want the descriptor's media type, and any after it", got)
			}
		})
	}
}

func TestHonestManifestAfterAWrongOneIsTaken(t *testing.T) {
	s, desc := hostile.New(t), descriptor("honest")
	s.On("/v2/test/app/manifests/"+desc.Digest.String(),
		hostile.Content("", []byte("lying!")), hostile.Content("", []byte("honest")))
	r := alone(t, s, quick)
	if _, err := r.Manifest(t.Context(), desc); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%v, want errdefs.ErrFailedPrecondition", err)
	}
	if data, err := r.Manifest(t.Context(), desc); err != nil || string(data) != "honest" {
		t.Errorf("%q, %v, want the honest answer", data, err)
	}
}

func TestContentThatMustNotBeFetchedIsNotAskedFor(t *testing.T) {
	s := hostile.New(t)
	r := alone(t, s, quick)
	for name, desc := range map[string]ocispec.Descriptor{
		"a path for a digest": {Digest: "../../../_catalog", Size: 1},
		"a query":             {Digest: "sha256:..?x", Size: 1},
		"empty digest":        {Size: 1},
		"size 0":              {Digest: digest.FromString("x")},
		"size -1":             {Digest: digest.FromString("x"), Size: -1},
	} {
		if _, err := r.Manifest(t.Context(), desc); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: manifest: %v, want errdefs.ErrInvalidArgument", name, err)
		}
		for _, mediaType := range []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayer} {
			desc.MediaType = mediaType
			if _, calls, err := blob(t, r, desc); !errdefs.IsInvalidArgument(err) || calls > 0 {
				t.Errorf("%s: blob of %s: used %d times, %v, want errdefs.ErrInvalidArgument", name, mediaType, calls, err)
			}
		}
	}
	huge := ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1 << 62}
	if _, err := r.Manifest(t.Context(), huge); !errdefs.IsResourceExhausted(err) {
		t.Errorf("manifest of size 2^62: %v, want errdefs.ErrResourceExhausted", err)
	}
	if got := s.Paths(); len(got) > 0 {
		t.Errorf("asked for %q", got)
	}
}

func TestURLsOfADescriptorAreNeverDialled(t *testing.T) {
	s, other := hostile.New(t), hostile.New(t)
	desc := descriptor("content")
	desc.URLs = []string{other.URL() + "/content"}
	desc.Data = []byte("content") // inline data is ignored
	if _, err := alone(t, s, quick).Manifest(t.Context(), desc); !errdefs.IsNotFound(err) {
		t.Errorf("%v, want errdefs.ErrNotFound", err)
	}
	desc.MediaType = ocispec.MediaTypeImageLayer
	if _, _, err := blob(t, alone(t, s, quick), desc); !errdefs.IsNotFound(err) {
		t.Errorf("%v, want errdefs.ErrNotFound", err)
	}
	if got := other.Paths(); len(got) > 0 {
		t.Errorf("the address in the descriptor was asked for %q", got)
	}
	if got := len(s.Paths()); got != 2 {
		t.Errorf("%d requests to the registry, want 2", got)
	}
}

func TestHostsAreTriedInOrder(t *testing.T) {
	const text = "content"
	desc := descriptor(text)
	path := "/v2/test/app/manifests/" + desc.Digest.String()
	has := hostile.Content(desc.MediaType, []byte(text))
	for _, tc := range []struct {
		name           string
		mirror         hostile.Answer
		upstream       hostile.Answer
		want           func(error) bool // nil: none
		upstreamAsked  int
		mirrorRequests int
	}{
		{"the mirror has it", has, has, nil, 0, 1},
		{"the mirror lacks it", hostile.Status(404), has, nil, 1, 1},
		{"the mirror lies", hostile.Content("", []byte("CONTENT")), has, nil, 1, 1},
		{"the mirror is ill", hostile.Status(500), has, nil, 1, 1},
		{"nobody has it", hostile.Status(404), hostile.Status(404), errdefs.IsNotFound, 1, 1},
		{"a 404 does not hide the mirror's 403", hostile.Status(403), hostile.Status(404), errdefs.IsPermissionDenied, 1, 1},
		{"a 404 does not hide the registry's 403", hostile.Status(404), hostile.Status(403), errdefs.IsPermissionDenied, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mirror, upstream := hostile.New(t), hostile.New(t)
			mirror.On(path, tc.mirror)
			upstream.On(path, tc.upstream)
			r := newRepository(t, upstream.Host(), quick, mirror.RegistryHost(pull), upstream.RegistryHost(pullResolve))
			data, err := r.Manifest(t.Context(), desc)
			if tc.want == nil && (err != nil || string(data) != text) || tc.want != nil && !tc.want(err) {
				t.Errorf("%q, %v", data, err)
			}
			if m, u := len(mirror.Paths()), len(upstream.Paths()); m != tc.mirrorRequests || u != tc.upstreamAsked {
				t.Errorf("%d requests to the mirror and %d to the registry, want %d and %d", m, u, tc.mirrorRequests, tc.upstreamAsked)
			}
			if got, want := mirror.Requests()[0].Query, "ns="+strings.ReplaceAll(upstream.Host(), ":", "%3A"); got != want {
				t.Errorf("query to the mirror: %q, want %q", got, want)
			}
			for _, request := range upstream.Requests() {
				if request.Query != "" {
					t.Errorf("query to the registry: %q, want none", request.Query)
				}
			}
		})
	}
	if _, err := newRepository(t, "registry.test", quick).Manifest(t.Context(), desc); !errdefs.IsNotFound(err) {
		t.Errorf("without hosts: %v, want errdefs.ErrNotFound", err)
	}
}

func TestMediaType(t *testing.T) {
	for value, want := range map[string]string{
		"":                                   "",
		"application/json":                   "application/json",
		" Application/JSON ; charset=utf-8":  "application/json",
		"text/html;charset=utf-8;boundary=x": "text/html",
	} {
		a := &Response{Header: http.Header{"Content-Type": {value}}}
		if got := a.MediaType(); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
	if got := (&Response{}).MediaType(); got != "" {
		t.Errorf("without headers: %q, want none", got)
	}
}
