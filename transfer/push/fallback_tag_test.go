package push

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

var (
	subject = digest.FromString("the subject")
	tagPath = "/v2/test/app/manifests/" + registry.FallbackTag(subject)
)

const capabilities = docker.HostCapabilityPush

func tagAt(t *testing.T, scheme, host string) *fallbackTag {
	t.Helper()
	spec, err := reference.Parse(host + "/test/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := registry.New(spec, []docker.RegistryHost{{Client: &http.Client{Transport: &http.Transport{}}, Host: host, Scheme: scheme, Path: "/v2", Capabilities: capabilities}},
		nil, registry.Limits{Attempts: 2, Backoff: time.Millisecond, RetryAfter: 10 * time.Millisecond}).ForPush()
	if err != nil {
		t.Fatal(err)
	}
	return &fallbackTag{repository: r, host: r.Hosts(docker.HostCapabilityPush)[0], name: registry.FallbackTag(subject)}
}

func entry(n int) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example",
		Digest:       digest.FromString(fmt.Sprint("referrer ", n)),
		Size:         int64(100 + n),
		Annotations:  map[string]string{"n": fmt.Sprint(n)},
	}
}

// slow is a registry of one tag, the last writing of which wins, that takes its time
// before and after it reads or writes it.
type slow struct {
	mu     sync.Mutex
	index  []byte
	writes int
}

func (s *slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	wait := func() { time.Sleep(rand.N(20 * time.Millisecond)) }
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	wait()
	s.mu.Lock()
	if r.Method == http.MethodPut {
		s.index = body
		s.writes++
	}
	index := s.index
	s.mu.Unlock()
	wait()
	switch {
	case r.Method == http.MethodPut:
		w.WriteHeader(http.StatusCreated)
	case index == nil:
		w.WriteHeader(http.StatusNotFound)
	default:
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		_, _ = w.Write(index)
	}
}

func (s *slow) digests(t *testing.T) map[digest.Digest]int {
	t.Helper()
	var index ocispec.Index
	if err := json.Unmarshal(s.index, &index); err != nil {
		t.Fatal(err)
	}
	out := map[digest.Digest]int{}
	for _, m := range index.Manifests {
		out[m.Digest]++
	}
	return out
}

// Writers that know nothing of each other lose no entry, neither of each other nor
// of what was there.
func TestConcurrentWritersLoseNothing(t *testing.T) {
	const writers = 24
	registry := &slow{}
	server := httptest.NewServer(registry)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	if err := tagAt(t, "http", host).add(t.Context(), []ocispec.Descriptor{entry(0)}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for n := 1; n <= writers; n++ {
		tag := tagAt(t, "http", host) // a client of its own, past the locks of a daemon
		wg.Go(func() {
			if err := tag.add(t.Context(), []ocispec.Descriptor{entry(n)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := registry.digests(t)
	for n := range writers + 1 {
		if got[entry(n).Digest] != 1 {
			t.Errorf("the entry of writer %d is there %d times", n, got[entry(n).Digest])
		}
	}
	t.Logf("%d writings", registry.writes)
}

// An entry that is gone after it was written is written again with all that was seen,
// whether the next look shows it or the last.
func TestWhatWasSeenIsWrittenAgain(t *testing.T) {
	all := hostile.Index(entry(1), entry(0), entry(2))
	created := hostile.Status(http.StatusCreated)
	for name, answers := range map[string][]hostile.Answer{
		// Each writing is of what the look before it showed.
		"at the next look": {hostile.Index(entry(1)), created, hostile.Index(entry(2)), hostile.Index(entry(2)), created, all},
		"at the last look": {hostile.Index(entry(1)), created, hostile.Index(entry(1), entry(0)), hostile.Index(entry(2)), hostile.Index(entry(2)), created, all},
		"removed":          {hostile.Index(entry(1), entry(2)), created, hostile.Status(http.StatusNotFound), hostile.Status(http.StatusNotFound), created, all},
	} {
		t.Run(name, func(t *testing.T) {
			s := hostile.New(t)
			s.On(tagPath, answers...)
			if err := tagAt(t, "http", s.Host()).add(t.Context(), []ocispec.Descriptor{entry(0)}); err != nil {
				t.Fatal(err)
			}
			var put []hostile.Request
			for _, r := range s.Requests() {
				if r.Method == http.MethodPut {
					put = append(put, r)
				}
			}
			if len(put) != 2 {
				t.Fatalf("%d writings, want 2", len(put))
			}
			var index ocispec.Index
			if err := json.Unmarshal(put[1].Body, &index); err != nil {
				t.Fatal(err)
			}
			if len(index.Manifests) != 3 || put[1].Header.Get("Content-Type") != ocispec.MediaTypeImageIndex {
				t.Errorf("written as %q: %s", put[1].Header.Get("Content-Type"), put[1].Body)
			}
		})
	}
}

// What is there is only written over where it is known in full.
func TestOddAnswersOfTheTag(t *testing.T) {
	large := fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[],"annotations":{"x":%q}}`, strings.Repeat("x", artifact.MaxManifestSize-100))
	for _, tc := range []struct {
		name   string
		answer hostile.Answer
		is     func(error) bool
		says   string
	}{
		{"500", hostile.Status(http.StatusInternalServerError), errdefs.IsUnavailable, "what it holds is not known, the registry answered 500"},
		{"503", hostile.Status(http.StatusServiceUnavailable), errdefs.IsUnavailable, "503"},
		{"401", hostile.Status(http.StatusUnauthorized), errdefs.IsUnavailable, "401"},
		{"403", hostile.Status(http.StatusForbidden), errdefs.IsUnavailable, "403"},
		{"dropped", hostile.Answer{Drop: true}, nil, "EOF"},
		{"an image", hostile.Content(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{},"layers":[]}`)), errdefs.IsFailedPrecondition, "holds no index"},
		{"an image that says index", hostile.Content(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"config":{},"layers":[]}`)), errdefs.IsInvalidArgument, "not overwritten"},
		{"a docker list", hostile.Content("application/vnd.docker.distribution.manifest.list.v2+json", []byte(`{"schemaVersion":2,"manifests":[]}`)), errdefs.IsFailedPrecondition, "holds no index"},
		{"HTML", hostile.Content("text/html", []byte(`<html>`)), errdefs.IsInvalidArgument, "not overwritten"},
		{"cut", hostile.Content(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[`)), nil, "not overwritten"},
		{"manifests twice", hostile.Content(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[],"manifests":[{}]}`)), errdefs.IsInvalidArgument, "twice"},
		{"too large", hostile.Content(ocispec.MediaTypeImageIndex, make([]byte, artifact.MaxManifestSize+1)), errdefs.IsResourceExhausted, "over the limit"},
		{"full", hostile.Content(ocispec.MediaTypeImageIndex, large), errdefs.IsResourceExhausted, "would have"},
		{"too many", hostile.Content(ocispec.MediaTypeImageIndex, fmt.Appendf(nil, `{"manifests":[{}%s]}`, strings.Repeat(",{}", maxEntries))), errdefs.IsResourceExhausted, "more than 20000 entries"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hostile.New(t)
			s.On(tagPath, tc.answer)
			err := tagAt(t, "http", s.Host()).add(t.Context(), []ocispec.Descriptor{entry(0)})
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("the error does not say %q: %v", tc.says, err)
			}
			if tc.is != nil && !tc.is(err) {
				t.Errorf("the error is of another kind: %v", err)
			}
			for _, r := range s.Requests() {
				if r.Method != http.MethodGet {
					t.Errorf("%s %s", r.Method, r.Path)
				}
			}
		})
	}
}

// An index keeps what others wrote into it, to the letter and in its order.
func TestIndexKeepsWhatItDoesNotKnow(t *testing.T) {
	const was = `{ "annotations": {"b":"1","a":"2"}, "manifests": [ {"digest":"sha256:zz", "x": 1.0} , {"size":3} ], "mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2,"extra":[ 1e3 ]}`
	i, err := parseIndex([]byte(was))
	if err != nil {
		t.Fatal(err)
	}
	wanted := &entryList{}
	if err := wanted.add(entry(0)); err != nil {
		t.Fatal(err)
	}
	if !wanted.join(i) || wanted.join(i) {
		t.Error("the entry is missing after it was added, or not before")
	}
	got, err := i.encode()
	if err != nil {
		t.Fatal(err)
	}
	e, err := json.Marshal(entry(0))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"annotations":{"b":"1","a":"2"},"manifests":[{"digest":"sha256:zz", "x": 1.0},{"size":3},` + string(e) +
		`],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2,"extra":[ 1e3 ]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A new index is one that the specification knows.
func TestNewIndex(t *testing.T) {
	data, err := newIndex().encode()
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`; string(data) != want {
		t.Errorf("%s", data)
	}
}
