package registry

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

func cosignPath(kind CosignKind) string {
	return repository + "manifests/sha256-" + subject.Encoded() + kind.Suffix
}

func TestCosignKinds(t *testing.T) {
	want := []CosignKind{
		{".sig", artifact.TypeCosignSignature},
		{".att", artifact.TypeCosignAttestation},
		{".sbom", artifact.TypeCosignSBOM},
	}
	if !slices.Equal(CosignKinds, want) {
		t.Errorf("%v, want %v", CosignKinds, want)
	}
}

func TestCosignTag(t *testing.T) {
	const text = `{"schemaVersion":2}`
	const docker2 = "application/vnd.docker.distribution.manifest.v2+json"
	present := hostile.Content(ocispec.MediaTypeImageManifest, []byte(text))
	for _, tc := range []struct {
		name      string
		answer    hostile.Answer
		want      string // code and status
		mediaType string // of what was found
		requests  int
	}{
		{"present", present, "200 present", ocispec.MediaTypeImageManifest, 1},
		{"present as Docker wrote it", hostile.Content(docker2+"; charset=utf-8", []byte(text)), "200 present", docker2, 1},
		{"absent", hostile.Status(404), "404 absent", "", 1},
		{"HTML", hostile.Content("text/html", []byte("<html>")), "200 unknown", "", 1},
		{"an index", hostile.Index(), "200 unknown", "", 1},
		{"no content type", hostile.Content("", []byte(text)), "200 unknown", "", 1},
		{"401", hostile.Status(401), "401 unknown", "", 1},
		{"403, as Artifactory says absent", hostile.Status(403), "403 unknown", "", 1},
		{"405: a missing endpoint is no missing tag", hostile.Status(405), "405 unknown", "", 1},
		{"429", hostile.Status(429), "429 unknown", "", 2},
		{"500", hostile.Status(500), "500 unknown", "", 2},
		{"Content-Length over the limit", hostile.Answer{Header: present.Header, Announce: artifact.MaxManifestSize + 1, Stall: true}, "200 truncated", "", 1},
		{"endless body", hostile.Answer{Header: present.Header, Body: make([]byte, 1<<20), Endless: true}, "200 truncated", "", 1},
		{"gzip that is none", present.With("Content-Encoding", "gzip"), "200 unknown", "", 1},
		{"zstd", present.With("Content-Encoding", "zstd"), "200 unknown", "", 1},
		{"body that stops", hostile.Answer{Header: present.Header, Body: []byte(text), Announce: 100, Stall: true}, "200 unknown", "", 1},
	} {
		for _, kind := range CosignKinds {
			t.Run(tc.name+kind.Suffix, func(t *testing.T) {
				s := hostile.New(t)
				s.On(cosignPath(kind), tc.answer)
				limits := twice
				if tc.answer.Stall {
					limits.Request = time.Second // the headers come in time
				}
				found, answers := repositoryAt(t, s.Host(), limits, s.RegistryHost(pullResolve)).CosignTag(t.Context(), subject, kind)
				checkAnswers(t, answers, s.Host(), []string{"tag: " + tc.want})
				if got, want := s.Paths(), slices.Repeat([]string{cosignPath(kind)}, tc.requests); !slices.Equal(got, want) {
					t.Errorf("asked for %q, want %q", got, want)
				}
				if accept := s.Requests()[0].Header.Get("Accept"); !strings.Contains(accept, ocispec.MediaTypeImageManifest) || !strings.Contains(accept, docker2) {
					t.Errorf("Accept: %q, want manifests of both kinds", accept)
				}
				if tc.mediaType == "" {
					if found != nil {
						t.Errorf("found %v, want nothing", found)
					}
					return
				}
				if found == nil {
					t.Fatal("found nothing")
				}
				want := ocispec.Descriptor{MediaType: tc.mediaType, ArtifactType: kind.ArtifactType, Digest: digest.FromString(text), Size: int64(len(text))}
				checkDigests(t, []ocispec.Descriptor{found.Descriptor}, []ocispec.Descriptor{want})
				if string(found.Manifest) != text {
					t.Errorf("manifest %q, want %q", found.Manifest, text)
				}
			})
		}
	}
}

func TestCosignTagAsksTheHostsThatMayResolve(t *testing.T) {
	kind := CosignKinds[0]
	proxy, mirror, upstream := hostile.New(t), hostile.New(t), hostile.New(t)
	r := repositoryAt(t, upstream.Host(), twice,
		proxy.RegistryHost(pullReferrers), mirror.RegistryHost(pullResolve), upstream.RegistryHost(pullResolve))
	upstream.On(cosignPath(kind), hostile.Content(ocispec.MediaTypeImageManifest, []byte("{}")))
	found, answers := r.CosignTag(t.Context(), subject, kind)
	if found == nil || len(answers) != 2 || answers[0].Status != labels.Absent || answers[1].Status != labels.Present {
		t.Errorf("found %v with %v, want the registry's after the mirror's 404", found, answers)
	}
	if got := proxy.Paths(); len(got) > 0 {
		t.Errorf("the host that may not resolve was asked for %q", got)
	}
	if got := mirror.Requests()[0].Query; !strings.HasPrefix(got, "ns=") {
		t.Errorf("the mirror was asked with %q, want ns", got)
	}

	mirror.On(cosignPath(kind), hostile.Status(403))
	upstream.On(cosignPath(kind))
	found, answers = r.CosignTag(t.Context(), subject, kind)
	if found != nil || len(answers) != 2 || answers[0].Status != labels.Unknown || answers[1].Status != labels.Absent {
		t.Errorf("found %v with %v, want unknown and absent", found, answers)
	}
}

// A mirror that fails for the tags costs a pull no wait while the registry answers, and is
// passed over for the next tag.
func TestHostThatFailsIsPassedOverForCosignTags(t *testing.T) {
	limits := twice
	limits.Backoff = time.Hour
	for name, tc := range map[string]struct {
		upstream hostile.Answer
		last     []string // of the answers for the last tag
	}{
		"the registry has them": {hostile.Content(ocispec.MediaTypeImageManifest, []byte("{}")), []string{"registry tag: 200 present"}},
		"the registry has none": {hostile.Status(404), []string{"registry tag: 404 absent", "mirror tag: 0 unknown"}},
	} {
		t.Run(name, func(t *testing.T) {
			mirror, upstream := hostile.New(t), hostile.New(t)
			for _, kind := range CosignKinds {
				mirror.On(cosignPath(kind), hostile.Status(http.StatusInternalServerError))
				upstream.On(cosignPath(kind), tc.upstream)
			}
			r := repositoryAt(t, upstream.Host(), limits, mirror.RegistryHost(pullResolve), upstream.RegistryHost(byDefault))
			var last []outcome.Answer
			for _, kind := range CosignKinds {
				_, last = r.CosignTag(t.Context(), subject, kind)
			}
			names := map[string]string{mirror.Host(): "mirror", upstream.Host(): "registry"}
			if got := answers(Listing{Answers: last}, names); !slices.Equal(got, tc.last) {
				t.Errorf("answers %q, want %q", got, tc.last)
			}
			if passed := last[len(last)-1]; len(tc.last) > 1 && !strings.Contains(passed.Detail, "not asked: it failed") {
				t.Errorf("%+v, want that the mirror was passed over", passed)
			}
			if m, u := len(mirror.Requests()), len(upstream.Requests()); m != 1 || u != len(CosignKinds) {
				t.Errorf("%d requests to the mirror and %d to the registry, want 1 and %d", m, u, len(CosignKinds))
			}
		})
	}
}

// Where no host answers for a tag each is asked with patience, as for a listing.
func TestHostThatFailsIsAskedAgainForCosignTagsWhereNoneAnswers(t *testing.T) {
	path := cosignPath(CosignKinds[0])
	mirror, upstream := hostile.New(t), hostile.New(t)
	ill := hostile.Status(http.StatusServiceUnavailable)
	mirror.On(path, ill, ill, hostile.Content(ocispec.MediaTypeImageManifest, []byte("{}")))
	upstream.On(path, ill)
	r := repositoryAt(t, upstream.Host(), twice, mirror.RegistryHost(pullResolve), upstream.RegistryHost(byDefault))
	if found, answers := r.CosignTag(t.Context(), subject, CosignKinds[0]); found == nil {
		t.Errorf("found nothing with %+v, want what the mirror has at last", answers)
	}
	if m, u := len(mirror.Requests()), len(upstream.Requests()); m != 3 || u != 2 {
		t.Errorf("%d requests to the mirror and %d to the registry, want 3 and 2", m, u)
	}
}
