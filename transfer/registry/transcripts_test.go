package registry

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"flag"
	"fmt"
	"iter"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

var update = flag.Bool("update", false, "write the tables of docs/registries.md")

const registriesPage = "../../docs/registries.md"

// An image of a transcript has two subjects: its index and one platform's manifest.
var (
	indexBody = hostile.Index(entry(1000)).Body
	index     = digest.FromBytes(indexBody)
	platform  = digest.FromString("the platform's manifest")
)

func referrersOf(d digest.Digest) string { return repository + "referrers/" + d.String() }
func tagOf(d digest.Digest) string       { return repository + "manifests/" + FallbackTag(d) }
func manifestOf(d digest.Digest) string  { return repository + "manifests/" + d.String() }

// play is the registry of a transcript, and the other hosts that it sends clients to.
type play struct {
	registry, site *hostile.Server
	mirror         *hostile.Server // before the registry, nil if there is none
	sessions       Sessions
	credentials    func(string) (string, string, error)
}

// each scripts an answer for both subjects.
func (p *play) each(path func(digest.Digest) string, a hostile.Answer) {
	for _, d := range []digest.Digest{index, platform} {
		p.registry.On(path(d), a)
	}
}

// elsewhere redirects a path for both subjects to the site, which answers there.
func (p *play) elsewhere(code int, path func(digest.Digest) string, a hostile.Answer) {
	for _, d := range []digest.Digest{index, platform} {
		p.registry.On(path(d), hostile.Status(code).With("Location", p.site.URL()+path(d)))
		p.site.On(path(d), a)
	}
}

// bearer has the registry ask for a token of its own service.
func (p *play) bearer(service string) {
	p.registry.Require(`Bearer realm="`+p.registry.URL()+service+`",service="registry",scope="repository:test/app:pull"`, "Bearer t", service)
	p.registry.On(service, hostile.Content("application/json", []byte(`{"token":"t","access_token":"t"}`)))
}

// basic has the registry ask for a password with each request.
func (p *play) basic() {
	p.registry.Require(`Basic realm="registry"`, "Basic "+base64.StdEncoding.EncodeToString([]byte("AWS:secret of AWS")), "")
	p.credentials = user("AWS")
}

// repository returns the repository as a pull opens it, once the image is resolved.
func (p *play) repository(t *testing.T) *Repository {
	limits := twice
	limits.Request = time.Second
	if p.mirror != nil {
		return repositoryAt(t, p.registry.Host(), limits, p.mirror.RegistryHost(byDefault), p.registry.RegistryHost(byDefault))
	}
	hosts, err := pullOf(t, &p.sessions, p.registry.Host(), plain(p.credentials))
	if err != nil {
		t.Fatal(err)
	}
	return repositoryAt(t, p.registry.Host(), limits, hosts...)
}

// signed lists one referrer of the index, and none of the platform's manifest.
func (p *play) signed(path func(digest.Digest) string) {
	p.registry.On(path(index), hostile.Index(entry(1)))
	p.registry.On(path(platform), hostile.Index())
}

func refusal(code int, mediaType, body string) hostile.Answer {
	a := hostile.Content(mediaType, []byte(body))
	a.Code = code
	return a
}

func ociError(code int, name string) hostile.Answer {
	return refusal(code, "application/json", `{"errors":[{"code":"`+name+`"}]}`)
}

var (
	pageNotFound = refusal(404, "text/plain; charset=utf-8", "404 page not found\n")
	noManifest   = ociError(404, "MANIFEST_UNKNOWN")
	signIn       = hostile.Content("text/html; charset=utf-8", bytes.Repeat([]byte("<p>Sign in</p>"), 500_000))
)

// transcript is what a registry answers about one image, and what is made of it.
type transcript struct {
	registry, image string
	script          func(*play)
	index, platform labels.Status
	taken           int    // referrers
	first           string // the requests of the first pull
	next            string // those of another within ten minutes, "" for the same
}

// line is a request as the page writes it: whom, for what, and the code that came.
func (p *play) line(s *hostile.Server, r hostile.Request) string {
	what := r.Path
	for name, path := range map[string]func(digest.Digest) string{"referrers": referrersOf, "tag": tagOf, "manifest": manifestOf} {
		if r.Path == path(index) || r.Path == path(platform) {
			what = name
		}
	}
	switch {
	case strings.Contains(r.Path, "token") || strings.Contains(r.Path, "auth"):
		what = "token"
	case strings.Contains(r.Query, "page=2"):
		what = "page 2"
	}
	if r.Method == http.MethodHead {
		what = "HEAD " + what
	}
	switch s {
	case p.site:
		what = "other host " + what
	case p.mirror:
		what = "mirror " + what
	}
	if r.Code == 0 {
		return what + " -"
	}
	return fmt.Sprintf("%s %d", what, r.Code)
}

func (p *play) requests(since time.Time) string {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	for _, s := range []*hostile.Server{p.registry, p.site, p.mirror} {
		if s == nil {
			continue
		}
		for _, r := range s.Requests() {
			if r.Time.After(since) {
				lines = append(lines, line{r.Time, p.line(s, r)})
			}
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var out []string
	for _, l := range lines {
		out = append(out, l.text)
	}
	return strings.Join(out, ", ")
}

func (tc transcript) run(t *testing.T) {
	p := &play{registry: hostile.New(t), site: hostile.New(t)}
	if strings.Contains(tc.registry, "mirror") {
		p.mirror = hostile.New(t)
	}
	t.Cleanup(p.sessions.Close)
	image := hostile.Content(ocispec.MediaTypeImageIndex, indexBody).With("Docker-Content-Digest", index.String())
	p.registry.On(repository+"manifests/v1", image)
	p.registry.On(manifestOf(index), image)
	p.each(tagOf, noManifest)
	tc.script(p)
	var known Capabilities
	for name, want := range pulls(tc.first, tc.next) {
		r := p.repository(t)
		began := time.Now()
		r.SetCapabilities(&known)
		var status []labels.Status
		taken := 0
		for _, d := range []digest.Digest{index, platform} {
			l, err := r.List(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			status = append(status, l.Status)
			taken += len(l.Referrers)
			for _, a := range l.Answers {
				t.Log(a)
			}
		}
		if !slices.Equal(status, []labels.Status{tc.index, tc.platform}) || taken != tc.taken {
			t.Errorf("%s pull: %s with %d taken, want %s and %s with %d", name, status, taken, tc.index, tc.platform, tc.taken)
		}
		if got := p.requests(began); got != want {
			t.Errorf("the %s pull asked\n%s\nwant\n%s", name, got, want)
		}
	}
	p.checkSecrets(t)
}

// pulls are the two pulls in their order, with the requests that each makes.
func pulls(first, next string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		_ = yield("first", first) && yield("next", cmp.Or(next, first))
	}
}

// checkSecrets has no other host get the registry's credentials, and no host a filter.
func (p *play) checkSecrets(t *testing.T) {
	for _, r := range p.site.Requests() {
		if got := r.Header.Get("Authorization"); got != "" {
			t.Errorf("another host got %q", got)
		}
	}
	for _, r := range p.registry.Requests() {
		if strings.Contains(r.Query, "artifactType") { // several make ECR answer with nothing
			t.Errorf("asked with %s", r.Query)
		}
	}
}

// TestTranscripts plays what each registry is known to answer.
func TestTranscripts(t *testing.T) {
	for _, tc := range transcripts {
		t.Run(tc.registry+"/"+tc.image, func(t *testing.T) {
			t.Parallel()
			tc.run(t)
		})
	}
}

// TestRegistriesPage holds the tables of docs/registries.md to the transcripts, which
// TestTranscripts holds to the client.
func TestRegistriesPage(t *testing.T) {
	page, err := os.ReadFile(registriesPage)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- transcripts: begin -->\n", "<!-- transcripts: end -->"
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no room for the tables", registriesPage)
	}
	want := before + begin + table() + end + after
	if want == string(page) {
		return
	}
	if *update {
		if err := os.WriteFile(registriesPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s is not what the transcripts say; write it anew with go test ./transfer/registry -run TestRegistriesPage -update", registriesPage)
}

func table() string {
	var out strings.Builder
	out.WriteString("| registry | image | status | taken | a first pull's requests | the next pull's |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, tc := range transcripts {
		status := fmt.Sprintf("`%s`, `%s`", tc.index, tc.platform)
		if tc.index == tc.platform {
			status = fmt.Sprintf("`%s`", tc.index)
		}
		fmt.Fprintf(&out, "| %s | %s | %s | %d | %s | %s |\n", tc.registry, tc.image, status, tc.taken, tc.first, cmp.Or(tc.next, "the same"))
	}
	return out.String()
}

// Every registry of the transcripts has a row that says where its answers are known
// from.
func TestRegistriesPageNamesItsSources(t *testing.T) {
	page, err := os.ReadFile(registriesPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range transcripts {
		name, _, _ := strings.Cut(tc.registry, ",")
		if !strings.Contains(string(page), "\n| "+name+" | ") {
			t.Errorf("%s has no row for %s", registriesPage, name)
		}
	}
}
