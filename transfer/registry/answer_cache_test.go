package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// methods returns how an address was asked, each with the ETag that was not to be sent.
func methods(s *hostile.Server, path string) []string {
	var out []string
	for _, r := range s.Requests() {
		if r.Path == path {
			out = append(out, strings.TrimSpace(r.Method+" "+r.Header.Get("If-None-Match")))
		}
	}
	return out
}

// remembering returns the repository of another pull, which shares the cache.
func remembering(t *testing.T, s *hostile.Server, c *AnswerCache) *Repository {
	t.Helper()
	r := repositoryAt(t, s.Host(), Limits{Attempts: 1}, s.RegistryHost(pullResolve))
	r.SetAnswers(c)
	return r
}

// A listing that has not changed is not sent again: the registry is asked whether it has,
// and its word alone counts.
func TestListingIsAskedForUnlessUnchanged(t *testing.T) {
	other := hostile.New(t)
	other.On("/elsewhere", hostile.Status(http.StatusNotModified))
	listed := hostile.Index(entry(1)).With("ETag", `"one"`)
	for name, tc := range map[string]struct {
		answers []hostile.Answer
		status  labels.Status
		listed  int // first and last of entries that the second listing has
		asked   []string
	}{
		"unchanged": {[]hostile.Answer{listed, hostile.Status(304)}, labels.Present, 1, []string{"GET", `GET "one"`}},
		"changed":   {[]hostile.Answer{listed, hostile.Index(entry(2)).With("ETag", `"two"`)}, labels.Present, 2, []string{"GET", `GET "one"`}},
		"no longer allowed": {
			[]hostile.Answer{listed, hostile.Status(403)}, labels.Unknown, 0, []string{"GET", `GET "one"`},
		},
		"without an ETag":  {[]hostile.Answer{hostile.Index(entry(1))}, labels.Present, 1, []string{"GET", "GET"}},
		"an ETag too long": {[]hostile.Answer{hostile.Index(entry(1)).With("ETag", `"`+strings.Repeat("x", 300)+`"`)}, labels.Present, 1, []string{"GET", "GET"}},
		"304 to no condition": {
			[]hostile.Answer{hostile.Index(entry(1)), hostile.Status(304)}, labels.Unknown, 0, []string{"GET", "GET"},
		},
		"another host's 304": {
			[]hostile.Answer{listed, redirect(other.URL() + "/elsewhere"), listed}, labels.Present, 1, []string{"GET", `GET "one"`, "GET"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := hostile.New(t), &AnswerCache{}
			s.On(api, tc.answers...)
			if _, err := remembering(t, s, c).List(t.Context(), subject); err != nil {
				t.Fatal(err)
			}
			l, err := remembering(t, s, c).List(t.Context(), subject)
			if err != nil || l.Status != tc.status {
				t.Errorf("%s, %v, want %s: %v", l.Status, err, tc.status, l.Answers)
			}
			var want []ocispec.Descriptor
			if tc.listed > 0 {
				want = entries(tc.listed, tc.listed)
			}
			checkDigests(t, l.Referrers, want)
			if got := methods(s, api); !slices.Equal(got, tc.asked) {
				t.Errorf("asked with %q, want %q", got, tc.asked)
			}
		})
	}
}

// Pages are remembered with their links.
func TestPagesAreRememberedWithTheirLinks(t *testing.T) {
	s, c := hostile.New(t), &AnswerCache{}
	s.On(api, hostile.Index(entry(1)).With("ETag", `"1"`).With("Link", next(api+"/2")), hostile.Status(304))
	s.On(api+"/2", hostile.Index(entry(2)).With("ETag", `"2"`), hostile.Status(304))
	for range 2 {
		l, err := remembering(t, s, c).List(t.Context(), subject)
		if err != nil || l.Status != labels.Present {
			t.Errorf("%s, %v: %v", l.Status, err, l.Answers)
		}
		checkDigests(t, l.Referrers, entries(1, 2))
	}
	if got := methods(s, api+"/2"); !slices.Equal(got, []string{"GET", `GET "2"`}) {
		t.Errorf("the second page was asked for with %q", got)
	}
}

// A tag is asked for with HEAD at a pull again, and with GET only where it points at
// something that is not known.
func TestTagsAreAskedForWithHead(t *testing.T) {
	body := hostile.Index(entry(1)).Body
	index := hostile.Index(entry(1)).With("Docker-Content-Digest", digest.FromBytes(body).String())
	moved := hostile.Index(entry(2))
	moved = moved.With("Docker-Content-Digest", digest.FromBytes(moved.Body).String())
	lies := hostile.Index(entry(2)).With("Docker-Content-Digest", digest.FromBytes(body).String())
	path := tag
	for name, tc := range map[string]struct {
		answers []hostile.Answer
		status  labels.Status
		listed  int
		asked   string
	}{
		"unchanged":                    {[]hostile.Answer{index}, labels.Present, 1, "GET HEAD"},
		"changed":                      {[]hostile.Answer{index, moved}, labels.Present, 2, "GET HEAD GET"},
		"gone":                         {[]hostile.Answer{index, hostile.Status(404)}, labels.Absent, 0, "GET HEAD"},
		"never there":                  {[]hostile.Answer{hostile.Status(404)}, labels.Absent, 0, "GET HEAD"},
		"not allowed any more":         {[]hostile.Answer{index, hostile.Status(401)}, labels.Unknown, 0, "GET HEAD"},
		"no HEAD here":                 {[]hostile.Answer{index, hostile.Status(405), index}, labels.Present, 1, "GET HEAD GET"},
		"HEAD without a digest":        {[]hostile.Answer{index, hostile.Index()}, labels.Absent, 0, "GET HEAD GET"},
		"a digest that is not its own": {[]hostile.Answer{lies, index}, labels.Present, 1, "GET HEAD GET"},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := hostile.New(t), &AnswerCache{}
			s.On(path, tc.answers...)
			if _, err := remembering(t, s, c).List(t.Context(), subject); err != nil {
				t.Fatal(err)
			}
			again := remembering(t, s, c)
			again.SetKnown(func(context.Context, digest.Digest) []byte { return nil })
			l, err := again.List(t.Context(), subject)
			if err != nil || l.Status != tc.status {
				t.Errorf("%s, %v, want %s: %v", l.Status, err, tc.status, l.Answers)
			}
			var want []ocispec.Descriptor
			if tc.listed > 0 {
				want = entries(tc.listed, tc.listed)
			}
			checkDigests(t, l.Referrers, want)
			if got := strings.Join(methods(s, path), " "); got != tc.asked {
				t.Errorf("asked with %q, want %q", got, tc.asked)
			}
		})
	}
}

// What lies under one of cosign's tags is known from the store, and held against the digest
// that the registry names.
func TestCosignTagIsKnownFromTheStore(t *testing.T) {
	data := []byte(`{"schemaVersion":2}`)
	kind := CosignKinds[0]
	path := repository + "manifests/" + kind.Tag(subject)
	for name, tc := range map[string]struct {
		stored []byte
		asked  string
	}{"stored": {data, "HEAD"}, "not stored": {nil, "HEAD GET"}, "damaged": {[]byte("damaged"), "HEAD GET"}} {
		s := hostile.New(t)
		s.On(path, hostile.Content(ocispec.MediaTypeImageManifest, data).With("Docker-Content-Digest", digest.FromBytes(data).String()))
		r := remembering(t, s, nil)
		r.SetKnown(func(context.Context, digest.Digest) []byte { return tc.stored })
		found, answers := r.CosignTag(t.Context(), subject, kind)
		if found == nil || string(found.Manifest) != string(data) || found.Digest != digest.FromBytes(data) {
			t.Errorf("%s: found %v: %v", name, found, answers)
		}
		if got := strings.Join(methods(s, path), " "); got != tc.asked {
			t.Errorf("%s: asked with %q, want %q", name, got, tc.asked)
		}
	}
}

// The cache holds no more than its limits, and forgets what was not used for longest.
func TestAnswerCacheIsBounded(t *testing.T) {
	at := func(n int) *url.URL {
		return &url.URL{Scheme: "https", Host: "r.test", Path: fmt.Sprint("/v2/app/referrers/", n)}
	}
	for name, size := range map[string]int{"entries": 10, "bytes": maxAnswer} {
		c := &AnswerCache{}
		for n := range 2 * maxAnswers {
			c.put(at(n).String(), at(n), &Response{URL: at(n), Code: http.StatusOK, Header: http.Header{"Etag": {"x"}}, Body: make([]byte, size)})
			if c.get(at(0).String()) == nil {
				t.Fatalf("%s: what is used is forgotten after %d others", name, n)
			}
		}
		held := 0
		for e := c.recent.Front(); e != nil; e = e.Next() {
			held += e.Value.(*cachedAnswer).size()
		}
		if len(c.byKey) != c.recent.Len() || len(c.byKey) > maxAnswers || held != c.bytes || held > maxAnswerBytes || held < maxAnswerBytes/8 {
			t.Errorf("%s: %d answers of %d bytes are held, %d counted", name, len(c.byKey), held, c.bytes)
		}
		c.put(at(0).String(), at(0), &Response{URL: at(0), Code: http.StatusOK, Header: http.Header{"Etag": {"x"}}, Body: make([]byte, maxAnswer+1)})
		if kept := c.get(at(0).String()); kept != nil && len(kept.body) > maxAnswer {
			t.Errorf("%s: an answer of %d bytes is held", name, len(kept.body))
		}
	}
}

// Docker Hub is asked for a tag with HEAD first at the first pull, too: it counts a GET.
func TestDockerHubIsAskedForTagsWithHead(t *testing.T) {
	kind := CosignKinds[0]
	path := repository + "manifests/" + kind.Tag(subject)
	manifest := hostile.Content(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`)).
		With("Docker-Content-Digest", digest.FromString(`{"schemaVersion":2}`).String())
	for name, tc := range map[string]struct {
		host   string
		answer hostile.Answer
		want   []string
	}{
		"nothing is there":              {dockerHub, hostile.Status(http.StatusNotFound), []string{"HEAD"}},
		"a signature is there":          {dockerHub, manifest, []string{"HEAD", "GET"}},
		"nothing, at another registry":  {"registry.test", hostile.Status(http.StatusNotFound), []string{"GET"}},
		"something at another registry": {"registry.test", manifest, []string{"GET"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := hostile.New(t)
			s.On(path, tc.answer)
			host := s.RegistryHost(pullResolve)
			host.Client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, s.Host())
			}
			host.Host = tc.host
			found, _ := repositoryAt(t, tc.host, twice, host).CosignTag(t.Context(), subject, kind)
			if present := tc.answer.Code != http.StatusNotFound; (found != nil) != present {
				t.Errorf("%v was found, want something: %t", found, present)
			}
			if got := methods(s, path); !slices.Equal(got, tc.want) {
				t.Errorf("asked with %q, want %q", got, tc.want)
			}
		})
	}
}
