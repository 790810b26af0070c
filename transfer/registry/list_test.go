package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

const (
	pullReferrers = docker.HostCapabilityPull | docker.HostCapabilityReferrers
	repository    = "/v2/test/app/"

	// byDefault is what containerd gives the registry itself, and every host
	// of a hosts.toml that names no capabilities.
	byDefault = docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush | docker.HostCapabilityReferrers
)

var (
	subject = digest.FromString("the subject")
	api     = repository + "referrers/" + subject.String()
	tag     = repository + "manifests/" + FallbackTag(subject)

	// twice are quick limits with one retry.
	twice = func() Limits {
		l := quick
		l.Attempts = 2
		return l
	}()
)

// entry is the nth referrer of a listing.
func entry(n int) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example",
		Digest:       digest.FromString(fmt.Sprint("referrer ", n)),
		Size:         int64(100 + n),
	}
}

func entries(from, to int) []ocispec.Descriptor {
	var out []ocispec.Descriptor
	for n := from; n <= to; n++ {
		out = append(out, entry(n))
	}
	return out
}

// repositoryAt returns test/app of the named registry, read through the hosts.
func repositoryAt(t *testing.T, name string, limits Limits, hosts ...docker.RegistryHost) *Repository {
	t.Helper()
	spec, err := reference.Parse(name + "/test/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	return New(spec, hosts, nil, limits)
}

// row is one thing that a registry may do, and what must be learnt from it.
type row struct {
	name   string
	script func(s *hostile.Server)
	limits Limits // zero: twice

	status    labels.Status
	referrers []ocispec.Descriptor
	rejected  int
	answers   []string // "request: code status" of each
	requests  []string // paths, in order

	anyRequests bool // where their number is not ours to choose
}

func (tc row) run(t *testing.T) {
	t.Run(tc.name, func(t *testing.T) {
		s := hostile.New(t)
		if tc.script != nil {
			tc.script(s)
		}
		limits := tc.limits
		if limits == (Limits{}) {
			limits = twice
		}
		l, err := repositoryAt(t, s.Host(), limits, s.RegistryHost(pullResolve)).List(t.Context(), subject)
		if err != nil {
			t.Fatal(err)
		}
		if l.Status != tc.status || l.Subject != subject {
			t.Errorf("status %q of %s, want %q", l.Status, l.Subject, tc.status)
		}
		checkDigests(t, l.Referrers, tc.referrers)
		if got := len(l.Rejected); got != tc.rejected {
			t.Errorf("%d entries rejected, want %d: %.3v", got, tc.rejected, l.Rejected)
		}
		checkAnswers(t, l.Answers, s.Host(), tc.answers)
		if got := s.Paths(); !tc.anyRequests && !slices.Equal(got, tc.requests) {
			t.Errorf("asked for\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.requests, "\n"))
		}
		for _, request := range s.Requests() {
			// Several of them make ECR answer with nothing.
			if strings.Contains(request.Query, "artifactType") {
				t.Errorf("asked with %s, want no filter", request.Query)
			}
		}
	})
}

func checkDigests(t *testing.T, got, want []ocispec.Descriptor) {
	t.Helper()
	same := func(a, b ocispec.Descriptor) bool {
		return a.Digest == b.Digest && a.Size == b.Size && a.MediaType == b.MediaType && a.ArtifactType == b.ArtifactType
	}
	if !slices.EqualFunc(got, want, same) {
		t.Errorf("%d referrers %.5v, want %d %.5v", len(got), got, len(want), want)
	}
}

func checkAnswers(t *testing.T, got []outcome.Answer, host string, want []string) {
	t.Helper()
	var said []string
	for _, a := range got {
		if a.Host != host {
			t.Errorf("answer of %s, want %s", a.Host, host)
		}
		request := a.Request
		if strings.HasPrefix(request, "tag ") {
			request = "tag"
		}
		said = append(said, strings.TrimSpace(fmt.Sprintf("%s: %d %s", request, a.Code, a.Status)))
	}
	if !slices.Equal(said, want) {
		t.Errorf("answers %q, want %q", said, want)
		for _, a := range got {
			t.Log(a)
		}
	}
}

// missing scripts a registry without the endpoint, that keeps the answer under
// the fallback tag.
func missing(code int, answers ...hostile.Answer) func(*hostile.Server) {
	return func(s *hostile.Server) {
		s.On(api, hostile.Status(code))
		s.On(tag, answers...)
	}
}

func answering(answers ...hostile.Answer) func(*hostile.Server) {
	return func(s *hostile.Server) { s.On(api, answers...) }
}

// TestRegistryAnswers has a row for each that registries are known to give to
// GET /v2/<name>/referrers/<digest>.
func TestRegistryAnswers(t *testing.T) {
	one := []ocispec.Descriptor{entry(1)}
	page2 := `<` + api + `?page=2>; rel="next"`
	html := hostile.Content("text/html; charset=utf-8", []byte("<html><body>please log in</body></html>"))
	for _, tc := range []row{
		{name: "200, an image index", script: answering(hostile.Index(one...)),
			status: labels.Present, referrers: one, answers: []string{"referrers: 200 present"}, requests: []string{api}},
		{name: "200, an image index: one page of it", script: answering(hostile.Index(one...).With("Link", page2), hostile.Index(entry(2))),
			status: labels.Present, referrers: entries(1, 2), answers: []string{"referrers, page 2: 200 present"}, requests: []string{api, api}},
		{name: "200, content type with a parameter", script: answering(hostile.Index(one...).With("Content-Type", "Application/vnd.oci.image.index.v1+json; charset=utf-8")),
			status: labels.Present, referrers: one, answers: []string{"referrers: 200 present"}, requests: []string{api}},
		{name: "200, an index without manifests", script: func(s *hostile.Server) {
			s.On(api, hostile.Index())
			s.On(tag, hostile.Index(one...)) // must not be consulted
		}, status: labels.Absent, answers: []string{"referrers: 200 absent"}, requests: []string{api}},
		{name: "200, an index whose manifests are null", script: answering(hostile.Content(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":null}`))),
			status: labels.Absent, answers: []string{"referrers: 200 absent"}, requests: []string{api}},
		{name: "200, an empty first page and one entry on the second", script: answering(hostile.Index().With("Link", page2), hostile.Index(one...)),
			status: labels.Present, referrers: one, answers: []string{"referrers, page 2: 200 present"}, requests: []string{api, api}},
		{name: "404, and the tag's index", script: missing(404, hostile.Index(one...)),
			status: labels.Present, referrers: one, answers: []string{"referrers: 404", "tag: 200 present"}, requests: []string{api, tag}},
		{name: "404 (also NAME_UNKNOWN)", script: func(s *hostile.Server) {
			unknown := hostile.Content("application/json", []byte(`{"errors":[{"code":"NAME_UNKNOWN"}]}`))
			unknown.Code = 404
			s.On(api, unknown)
			s.On(tag, unknown)
		}, status: labels.Absent, answers: []string{"referrers: 404", "tag: 404 absent"}, requests: []string{api, tag}},
		{name: "404, and the tag's index has no manifests", script: missing(404, hostile.Index()),
			status: labels.Absent, answers: []string{"referrers: 404", "tag: 200 absent"}, requests: []string{api, tag}},
		{name: "400", script: missing(400, hostile.Index(one...)),
			status: labels.Present, referrers: one, answers: []string{"referrers: 400", "tag: 200 present"}, requests: []string{api, tag}},
		{name: "405", script: missing(405, hostile.Index(one...)),
			status: labels.Present, referrers: one, answers: []string{"referrers: 405", "tag: 200 present"}, requests: []string{api, tag}},
		{name: "405, and nothing under the tag: only 404 says that there are none", script: missing(405, hostile.Status(404)),
			status: labels.Unknown, answers: []string{"referrers: 405", "tag: 404 unknown"}, requests: []string{api, tag}},
		{name: "406", script: missing(406, hostile.Index(one...)),
			status: labels.Present, referrers: one, answers: []string{"referrers: 406", "tag: 200 present"}, requests: []string{api, tag}},
		{name: "501", script: missing(501, hostile.Index(one...)),
			status: labels.Present, referrers: one, answers: []string{"referrers: 501", "tag: 200 present"}, requests: []string{api, tag}},
		{name: "501, and nothing under the tag", script: missing(501, hostile.Status(404)),
			status: labels.Unknown, answers: []string{"referrers: 501", "tag: 404 unknown"}, requests: []string{api, tag}},
		{name: "501, and the tag's index has no manifests", script: missing(501, hostile.Index()),
			status: labels.Absent, answers: []string{"referrers: 501", "tag: 200 absent"}, requests: []string{api, tag}},
		{name: "404, and the tag's 403 as Artifactory gives it", script: missing(404, hostile.Status(403)),
			status: labels.Unknown, answers: []string{"referrers: 404", "tag: 403 unknown"}, requests: []string{api, tag}},
		{name: "404, and the tag's 400: only the endpoint may be missing so", script: missing(404, hostile.Status(400)),
			status: labels.Unknown, answers: []string{"referrers: 404", "tag: 400 unknown"}, requests: []string{api, tag}},
		{name: "404, and an image under the tag", script: missing(404, hostile.Content(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))),
			status: labels.Unknown, answers: []string{"referrers: 404", "tag: 200 unknown"}, requests: []string{api, tag}},
		{name: "200 with HTML", script: answering(html),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown", "tag: 404 unknown"}, requests: []string{api, tag}},
		{name: "200 with HTML, and the tag's index", script: func(s *hostile.Server) {
			s.On(api, html)
			s.On(tag, hostile.Index(one...))
		}, status: labels.Unknown, referrers: one, answers: []string{"referrers: 200 unknown", "tag: 200 present"}, requests: []string{api, tag}},
		{name: "204, and the tag's index", script: func(s *hostile.Server) {
			s.On(api, hostile.Status(204))
			s.On(tag, hostile.Index(one...))
		}, status: labels.Unknown, referrers: one, answers: []string{"referrers: 204 unknown", "tag: 200 present"}, requests: []string{api, tag}},
		{name: "200 with JSON that says it is an index, as Harbor before 2.11 wrote", script: answering(hostile.Index(one...).With("Content-Type", "application/json; charset=utf-8")),
			status: labels.Present, referrers: one, answers: []string{"referrers: 200 present"}, requests: []string{api}},
		{name: "200 with such JSON and no manifests", script: answering(hostile.Index().With("Content-Type", "application/json")),
			status: labels.Absent, answers: []string{"referrers: 200 absent"}, requests: []string{api}},
		{name: "404, and such JSON under the tag", script: missing(404, hostile.Index(one...).With("Content-Type", "application/json")),
			status: labels.Present, referrers: one, answers: []string{"referrers: 404", "tag: 200 present"}, requests: []string{api, tag}},
		{name: "200 with JSON that does not say so", script: answering(hostile.Content("application/json", []byte(`{"schemaVersion":2,"manifests":[]}`))),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown", "tag: 404 unknown"}, requests: []string{api, tag}},
		{name: "200 with another content type", script: answering(hostile.Index(one...).With("Content-Type", "text/plain")),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown", "tag: 404 unknown"}, requests: []string{api, tag}},
		{name: "404, and the tag's HTML", script: missing(404, html),
			status: labels.Unknown, answers: []string{"referrers: 404", "tag: 200 unknown"}, requests: []string{api, tag}},
		{name: "401", script: answering(hostile.Status(401)),
			status: labels.Unknown, answers: []string{"referrers: 401 unknown"}, requests: []string{api}},
		{name: "403", script: answering(hostile.Status(403)),
			status: labels.Unknown, answers: []string{"referrers: 403 unknown"}, requests: []string{api}},
		{name: "429", script: answering(hostile.Status(429).With("Retry-After", "1")),
			status: labels.Unknown, answers: []string{"referrers: 429 unknown"}, requests: []string{api, api}},
		{name: "503", script: answering(hostile.Status(503).With("Retry-After", "1")),
			status: labels.Unknown, answers: []string{"referrers: 503 unknown"}, requests: []string{api, api}},
		{name: "500, then the listing", script: answering(hostile.Status(500), hostile.Index(one...)),
			status: labels.Present, referrers: one, answers: []string{"referrers: 200 present"}, requests: []string{api, api}},
		{name: "time-out", script: answering(hostile.Answer{Hang: true}),
			limits: Limits{Request: 200 * time.Millisecond, Backoff: time.Millisecond},
			status: labels.Unknown, answers: []string{"referrers: 0 unknown"}, requests: []string{api}},
		{name: "a code that nobody knows", script: answering(hostile.Status(299)),
			status: labels.Unknown, answers: []string{"referrers: 299 unknown", "tag: 404 unknown"}, requests: []string{api, tag}},
		{name: "204", script: answering(hostile.Status(204)),
			status: labels.Unknown, answers: []string{"referrers: 204 unknown", "tag: 404 unknown"}, requests: []string{api, tag}},
	} {
		tc.run(t)
	}
}

// Pages of a listing that was redirected: those at the same host go on from where it
// came from, and those elsewhere are not asked for with the registry's credentials.
func TestPagesOfARedirectedListing(t *testing.T) {
	s := hostile.New(t)
	s.On(api, hostile.Status(307).With("Location", "/cache/listing"))
	s.On("/cache/listing", hostile.Index(entry(1)).With("Link", next("more")))
	s.On("/cache/more", hostile.Index(entry(2)))
	l, err := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve)).List(t.Context(), subject)
	if err != nil || l.Status != labels.Present {
		t.Errorf("%s, %v, want present", l.Status, err)
	}
	checkDigests(t, l.Referrers, entries(1, 2))

	for name, target := range map[string]func(s, edge *hostile.Server) string{
		"relative":        func(*hostile.Server, *hostile.Server) string { return "?page=2" },
		"to the edge":     func(_, edge *hostile.Server) string { return edge.URL() + "/listing?page=2" },
		"to the registry": func(s, _ *hostile.Server) string { return s.URL() + api + "?page=2" },
	} {
		t.Run(name, func(t *testing.T) {
			s, edge := hostile.New(t), hostile.New(t)
			s.On(api, hostile.Status(307).With("Location", edge.URL()+"/listing"))
			edge.On("/listing", hostile.Index(entry(1)).With("Link", next(target(s, edge))))
			l, err := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve)).List(t.Context(), subject)
			if err != nil || l.Status != labels.Unknown {
				t.Errorf("%s, %v, want unknown", l.Status, err)
			}
			checkDigests(t, l.Referrers, entries(1, 1))
			if n := len(s.Requests()) + len(edge.Requests()); n != 2 {
				t.Errorf("%d requests, want 2", n)
			}
		})
	}
}

func TestRedirectElsewhereIsFollowedWithCare(t *testing.T) {
	for _, code := range []int{302, 303} {
		s, edge := hostile.New(t), hostile.New(t)
		s.On(api, hostile.Status(code).With("Location", edge.URL()+"/listing"))
		edge.On("/listing", hostile.Index(entry(1)))
		host := s.RegistryHost(pullResolve)
		host.Header = map[string][]string{"X-Secret": {"secret"}}
		l, err := repositoryAt(t, s.Host(), twice, host).List(t.Context(), subject)
		if err != nil || l.Status != labels.Present {
			t.Fatalf("%d: %s, %v, want the listing", code, l.Status, err)
		}
		checkAnswers(t, l.Answers, s.Host(), []string{"referrers: 200 present"})
		if got := s.Requests()[0].Header.Get("X-Secret"); got != "secret" {
			t.Errorf("%d: the registry got %q of the configured header", code, got)
		}
		if got := edge.Requests()[0].Header.Get("X-Secret"); got != "" {
			t.Errorf("%d: another host got the configured header: %q", code, got)
		}
	}
}

func TestSubjectThatIsNoDigestIsNotAskedAbout(t *testing.T) {
	s := hostile.New(t)
	r := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve))
	for _, bad := range []digest.Digest{"", "../../../_catalog", "sha256:..?x", "sha256:", subject[:20], subject + "?x"} {
		if l, err := r.List(t.Context(), bad); !errdefs.IsInvalidArgument(err) || l.Status == labels.Absent {
			t.Errorf("%q: %q, %v, want errdefs.ErrInvalidArgument", bad, l.Status, err)
		}
	}
	if got := s.Paths(); len(got) > 0 {
		t.Errorf("asked for %q", got)
	}
}
