package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// resolveAndFetch resolves app:v1 at the hosts as a pull does, and fetches what it names.
func resolveAndFetch(ctx context.Context, byGet bool, hostsOf ...docker.RegistryHost) (ocispec.Descriptor, []byte, error) {
	known := slices.Clone(hostsOf)
	if byGet {
		wrapResolve(known)
	}
	r := docker.NewResolver(docker.ResolverOptions{Hosts: func(string) ([]docker.RegistryHost, error) { return known, nil }})
	ref := hostsOf[0].Host + "/app:v1"
	name, desc, err := r.Resolve(ctx, ref)
	if err != nil {
		return desc, nil, err
	}
	f, err := r.Fetcher(ctx, name)
	if err != nil {
		return desc, nil, err
	}
	rc, err := f.Fetch(ctx, desc)
	if err != nil {
		return desc, nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	return desc, data, err
}

// What a tag names is fetched with one request, where it can be trusted and kept;
// else with those that containerd makes, and to the same end.
func TestResolveByGet(t *testing.T) {
	const text = `{"schemaVersion":2}`
	right := digest.FromString(text)
	manifest := hostile.Content(ocispec.MediaTypeImageIndex, []byte(text))
	stated := manifest.With("Docker-Content-Digest", right.String())
	long := strings.Repeat(" ", artifact.MaxManifestSize) + "{}"
	tag, byDigest := appManifests+"v1", appManifests+right.String()
	for _, tc := range []struct {
		name     string
		tag      hostile.Answer
		requests []string // beyond these, as containerd's
		fails    bool
	}{
		{"one request", stated, []string{"GET " + tag}, false},
		{"no digest said", manifest, []string{"GET " + tag, "HEAD " + tag, "GET " + tag, "GET " + byDigest}, false},
		{"digest of something else", manifest.With("Docker-Content-Digest", digest.FromString("other").String()),
			[]string{"GET " + tag, "HEAD " + tag, "GET " + appManifests + digest.FromString("other").String()}, true},
		{"encoded", stated.With("Content-Encoding", "br"), []string{"GET " + tag, "HEAD " + tag, "GET " + byDigest}, false},
		{"too long", hostile.Content(ocispec.MediaTypeImageIndex, []byte(long)).With("Docker-Content-Digest", digest.FromString(long).String()),
			[]string{"GET " + tag, "HEAD " + tag, "GET " + appManifests + digest.FromString(long).String()}, true},
		{"not there", hostile.Answer{Code: http.StatusNotFound}, []string{"GET " + tag}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hostile.New(t)
			s.On(tag, tc.tag)
			s.On(byDigest, manifest)
			desc, data, err := resolveAndFetch(t.Context(), true, s.RegistryHost(pullResolve))
			if (err != nil) != tc.fails {
				t.Fatalf("error %v", err)
			}
			if err == nil && (desc.Digest != right || desc.Size != int64(len(text)) || desc.MediaType != ocispec.MediaTypeImageIndex || string(data) != text) {
				t.Errorf("resolved %+v, fetched %q", desc, data)
			}
			checkRequests(t, s, tc.requests...)
		})
	}
}

// Storage that manifests are redirected to may sign its addresses for one method.
func TestResolveByGetKeepsToTheMethodOfARedirect(t *testing.T) {
	const text = `{"schemaVersion":2}`
	right := digest.FromString(text)
	for name, redirectsHead := range map[string]bool{"HEAD as well": true, "GET alone": false} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				signed := r.URL.Query().Get("method")
				if signed == "" && (r.Method == http.MethodGet || redirectsHead) {
					http.Redirect(w, r, "/storage/manifests/x?method="+r.Method, http.StatusTemporaryRedirect)
					return
				}
				if signed != "" && signed != r.Method {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
				w.Header().Set("Docker-Content-Digest", right.String())
				w.Header().Set("Content-Length", fmt.Sprint(len(text)))
				_, _ = io.WriteString(w, text) // left out of the answer to HEAD
			}))
			defer s.Close()
			host := docker.RegistryHost{Client: &http.Client{Transport: &http.Transport{}}, Scheme: "http", Host: strings.TrimPrefix(s.URL, "http://"), Path: "/v2", Capabilities: pullResolve}
			desc, data, err := resolveAndFetch(t.Context(), true, host)
			if err != nil || desc.Digest != right || string(data) != text {
				t.Errorf("%s, %q, %v", desc.Digest, data, err)
			}
		})
	}
}

const appManifests = "/v2/app/manifests/"

func checkRequests(t *testing.T, s *hostile.Server, want ...string) {
	t.Helper()
	var got []string
	for _, r := range s.Requests() {
		got = append(got, fmt.Sprintf("%s %s", r.Method, r.Path))
	}
	if !slices.Equal(got, want) {
		t.Errorf("requests:\n got %q\nwant %q", got, want)
	}
}

// Where the image is there, and where a mirror would be asked for the content that
// the registry resolves, no manifest is fetched that may not be needed.
func TestResolveByGetIsLeftWhereItGainsNothing(t *testing.T) {
	const text = `{"schemaVersion":2}`
	answer := hostile.Content(ocispec.MediaTypeImageIndex, []byte(text)).With("Docker-Content-Digest", digest.FromString(text).String())
	start := func() *hostile.Server {
		s := hostile.New(t)
		s.On(appManifests+"v1", answer)
		s.On(appManifests+digest.FromString(text).String(), answer)
		return s
	}
	s := start()
	if _, _, err := resolveAndFetch(t.Context(), false, s.RegistryHost(pullResolve)); err != nil {
		t.Fatal(err)
	}
	checkRequests(t, s, "HEAD "+appManifests+"v1", "GET "+appManifests+digest.FromString(text).String())

	mirror, upstream := start(), start()
	if _, _, err := resolveAndFetch(t.Context(), true, mirror.RegistryHost(docker.HostCapabilityPull), upstream.RegistryHost(pullResolve)); err != nil {
		t.Fatal(err)
	}
	checkRequests(t, upstream, "HEAD "+appManifests+"v1")
	checkRequests(t, mirror, "GET "+appManifests+digest.FromString(text).String())
}
