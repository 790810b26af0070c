package registry

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

func next(target string) string { return `<` + target + `>; rel="next"` }

// TestHostileAnswers has the rows that decide between absent and unknown.
func TestHostileAnswers(t *testing.T) {
	one := []ocispec.Descriptor{entry(1)}
	valid := hostile.Index(one...)
	rows := []row{
		{name: "API 404 and tag 404", script: missing(404),
			status: labels.Absent, answers: []string{"referrers: 404", "tag: 404 absent"}, requests: []string{api, tag}},
		{name: "API 500, tag index valid", script: missing(500, valid),
			status: labels.Unknown, answers: []string{"referrers: 500 unknown"}, requests: []string{api, api}},
		{name: "two pages, the second fails", script: answering(valid.With("Link", next("?page=2")), hostile.Status(503)),
			status: labels.Unknown, referrers: one, answers: []string{"referrers, page 2: 503 unknown"}, requests: []string{api, api, api}},
		{name: "two pages, the second is not there", script: answering(valid.With("Link", next("?page=2")), hostile.Status(404)),
			status: labels.Unknown, referrers: one, answers: []string{"referrers, page 2: 404 unknown"}, requests: []string{api, api}},
		{name: "two pages, the second is HTML", script: answering(valid.With("Link", next("?page=2")), hostile.Content("text/html", []byte("<html>"))),
			status: labels.Unknown, referrers: one, answers: []string{"referrers, page 2: 200 unknown"}, requests: []string{api, api}},
		{name: "two pages, the second breaks off", script: answering(valid.With("Link", next("?page=2")), hostile.Answer{Drop: true}),
			status: labels.Unknown, referrers: one, answers: []string{"referrers, page 2: 0 unknown"},
			// net/http, too, repeats what broke on a connection used before.
			anyRequests: true},
		{name: "three pages", script: answering(valid.With("Link", next("?page=2")), hostile.Index(entry(2)).With("Link", next("?page=3")), hostile.Index(entry(3))),
			status: labels.Present, referrers: entries(1, 3), answers: []string{"referrers, page 3: 200 present"}, requests: []string{api, api, api}},
		{name: "200 text/html", script: answering(hostile.Content("text/html", []byte("<html></html>"))),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown", "tag: 404 unknown"}, requests: []string{api, tag}},
		{name: "200 text/html that holds a listing", script: answering(valid.With("Content-Type", "text/html")),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown", "tag: 404 unknown"}, requests: []string{api, tag}},
		{name: "200 without a content type", script: answering(hostile.Content("", []byte(`{"schemaVersion":2,"manifests":[]}`))),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown", "tag: 404 unknown"}, requests: []string{api, tag}},
		{name: "429 with Retry-After, then the listing", script: answering(hostile.Status(429).With("Retry-After", "3600"), valid),
			status: labels.Present, referrers: one, answers: []string{"referrers: 200 present"}, requests: []string{api, api}},
		{name: "body at one byte a second", script: answering(hostile.Answer{Header: valid.Header, Body: valid.Body, Drip: time.Second}),
			limits: Limits{Request: time.Second},
			status: labels.Unknown, answers: []string{"referrers: 200 unknown"}, requests: []string{api}},
		{name: "the tag's body at one byte a second", script: missing(404, hostile.Answer{Header: valid.Header, Body: valid.Body, Drip: time.Second}),
			limits: Limits{Request: time.Second},
			status: labels.Unknown, answers: []string{"referrers: 404", "tag: 200 unknown"}, requests: []string{api, tag}},
	}
	for _, code := range []int{500, 403, 429} {
		requests := []string{api, api}
		if code == 403 {
			requests = requests[:1]
		}
		rows = append(rows, row{name: fmt.Sprintf("API %d, fallback tag 404", code), script: missing(code, hostile.Status(404)),
			status: labels.Unknown, answers: []string{fmt.Sprintf("referrers: %d unknown", code)}, requests: requests})
	}
	for _, code := range []int{400, 405, 406, 501} {
		rows = append(rows, row{name: fmt.Sprintf("API %d", code), script: missing(code, valid),
			status: labels.Present, referrers: one, answers: []string{fmt.Sprintf("referrers: %d", code), "tag: 200 present"}, requests: []string{api, tag}})
	}
	for name, body := range map[string]string{
		"nothing":               ``,
		"cut short":             `{"schemaVersion":2,"manifests":[`,
		"no object":             `[]`,
		"null":                  `null`,
		"an error":              `{"errors":[{"code":"UNSUPPORTED"}]}`,
		"two values":            `{"schemaVersion":2,"manifests":[]}{}`,
		"a string of them":      `{"schemaVersion":2,"manifests":"none"}`,
		"another version":       `{"schemaVersion":1,"manifests":[]}`,
		"another type":          `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}`,
		"manifests twice":       `{"schemaVersion":2,"manifests":[],"manifests":[]}`,
		"manifests in capitals": `{"schemaVersion":2,"manifests":[],"MANIFESTS":[{}]}`,
		"another field twice":   `{"schemaVersion":2,"manifests":[],"x":1,"x":2}`,
		"a field within twice":  `{"schemaVersion":2,"manifests":[],"annotations":{"a":"b","a":"c"}}`,
		"nested for ever":       `{"schemaVersion":2,"manifests":` + strings.Repeat("[", 1<<20),
	} {
		rows = append(rows, row{name: "200 with an index that is none: " + name, script: answering(hostile.Content(ocispec.MediaTypeImageIndex, []byte(body))),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown", "tag: 404 unknown"}, requests: []string{api, tag}})
	}
	for name, target := range map[string]string{
		"another host":           "http://registry.invalid" + api,
		"another host, no colon": "//registry.invalid" + api,
		"another port":           "http://127.0.0.1:1" + api,
		"another scheme":         "https://127.0.0.1" + api,
		"no scheme of the web":   "file:///etc/passwd",
		"what cannot be read":    "http://[::1" + api,
	} {
		rows = append(rows, row{name: "Link to " + name, script: answering(valid.With("Link", next(target))),
			status: labels.Unknown, referrers: one, answers: []string{"referrers: 200 unknown"}, requests: []string{api}})
	}
	for _, tc := range rows {
		tc.run(t)
	}
}

func TestLinkWithUserinfoIsRefused(t *testing.T) {
	s := hostile.New(t)
	s.On(api, hostile.Index(entry(1)).With("Link", next("http://user:secret@"+s.Host()+api+"?page=2")))
	l, err := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve)).List(t.Context(), subject)
	if err != nil || l.Status != labels.Unknown || len(l.Referrers) != 1 {
		t.Errorf("%s with %d referrers, %v, want unknown with 1", l.Status, len(l.Referrers), err)
	}
	for _, a := range l.Answers {
		if strings.Contains(a.String(), "secret") {
			t.Errorf("the answer tells the password: %s", a)
		}
	}
	if got := len(s.Requests()); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
}

func TestTokenThatRunsOutBetweenPagesIsRenewed(t *testing.T) {
	s := hostile.New(t)
	challenge := hostile.Status(http.StatusUnauthorized).
		With("WWW-Authenticate", `Bearer realm="`+s.URL()+`/token",service="test",error="invalid_token"`)
	s.On("/token",
		hostile.Content("application/json", []byte(`{"token":"first"}`)),
		hostile.Content("application/json", []byte(`{"token":"second"}`)))
	s.On(api, challenge, hostile.Index(entry(1)).With("Link", next("?page=2")), challenge, hostile.Index(entry(2)))
	host := s.RegistryHost(pullResolve)
	host = withSession(host, host.Client, nil)
	l, err := repositoryAt(t, s.Host(), twice, host).List(t.Context(), subject)
	if err != nil || l.Status != labels.Present {
		t.Errorf("%s, %v, want present", l.Status, err)
	}
	checkDigests(t, l.Referrers, entries(1, 2))
	if got, want := s.Paths(), []string{api, "/token", api, api, "/token", api}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
	for i, want := range map[int]string{0: "", 2: "Bearer first", 3: "Bearer first", 5: "Bearer second"} {
		if got := s.Requests()[i].Header.Get("Authorization"); got != want {
			t.Errorf("request %d: Authorization %q, want %q", i, got, want)
		}
	}
}

func TestRetryAfterOfAListingIsCapped(t *testing.T) {
	s := hostile.New(t)
	s.On(api, hostile.Status(http.StatusTooManyRequests).With("Retry-After", "3600"), hostile.Index())
	limits := twice
	limits.RetryAfter = 200 * time.Millisecond
	l, err := repositoryAt(t, s.Host(), limits, s.RegistryHost(pullResolve)).List(t.Context(), subject)
	if err != nil || l.Status != labels.Absent {
		t.Fatalf("%s, %v, want absent", l.Status, err)
	}
	requests := s.Requests()
	if got := requests[1].Time.Sub(requests[0].Time); got < limits.RetryAfter*9/10 || got > 20*limits.RetryAfter {
		t.Errorf("asked again after %s, want the cap of %s", got, limits.RetryAfter)
	}
}
