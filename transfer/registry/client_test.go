package registry

import (
	"context"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// A client's image and its referrers have the same hosts, and a client without the daemon's
// sessions leaves nothing behind.
func TestClientGivesTheSameHosts(t *testing.T) {
	s := tokenServer(t)
	asked := 0
	c := NewClient(t.Context(), plain(func(string) (string, string, error) {
		asked++
		return user("a")("")
	}))
	ref := s.Host() + "/test/app:v1"
	if known, _ := c.Known(ref); known {
		t.Error("a registry is remembered that nobody asked")
	}
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: c.Hosts})
	if _, _, err := resolver.Resolve(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	c.Settled()
	if known, multiplexed := c.Known(ref); !known || multiplexed {
		t.Errorf("the registry is remembered: %t, over HTTP/2: %t, want it to be, over HTTP/1.1", known, multiplexed)
	}
	r, err := c.Repository(ref, nil, twice)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := r.List(t.Context(), subject); err != nil || len(l.Answers) == 0 || l.Answers[0].Code == 401 {
		t.Errorf("%+v, %v, want the listing with the image's token", l.Answers, err)
	}
	if asked != 1 {
		t.Errorf("the client was asked for its credentials %d times, want once", asked)
	}
	c.Close()
	if n := len(c.own.known); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	for _, ref := range []string{"", "no host"} {
		if _, err := c.Repository(ref, nil, twice); err == nil {
			t.Errorf("%q is a reference", ref)
		}
	}
}

// Where the image is resolved with GET, requests of ours keep to HEAD: registries count a GET, and the image's fetcher
// gets none of their answers.
func TestOurHeadsStayHeadsWhereTheImageIsResolvedByGet(t *testing.T) {
	s := hostile.New(t)
	manifest := hostile.Content(ocispec.MediaTypeImageManifest, []byte("{}")).With("Docker-Content-Digest", digest.FromString("{}").String())
	byDigest := repository + "manifests/" + digest.FromString("{}").String()
	kind := CosignKinds[0]
	s.On(imageTag, image())
	s.On(byDigest, manifest)
	s.On(cosignPath(kind), manifest)
	c := NewClient(t.Context(), plain(nil))
	t.Cleanup(c.Close)
	c.ResolveByGet()
	ref := s.Host() + "/test/app:v1"
	r, err := c.Repository(ref, nil, twice)
	if err != nil {
		t.Fatal(err)
	}
	r.SetKnown(func(context.Context, digest.Digest) []byte { return []byte("{}") })
	if found, answers := r.CosignTag(t.Context(), subject, kind); found == nil {
		t.Errorf("found nothing: %+v", answers)
	}
	if got := methods(s, cosignPath(kind)); !slices.Equal(got, []string{http.MethodHead}) {
		t.Errorf("the tag was asked for with %q, want HEAD", got)
	}
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: c.Hosts})
	name, desc, err := resolver.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	fetcher, err := resolver.Fetcher(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	content, err := fetcher.Fetch(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(content)
	if err != nil || string(data) != "{}" || content.Close() != nil {
		t.Errorf("fetched %q, %v", data, err)
	}
	if got := methods(s, imageTag); !slices.Equal(got, []string{http.MethodGet}) || len(methods(s, byDigest)) != 0 {
		t.Errorf("the image was asked for with %q and %q, want one GET of its tag", got, methods(s, byDigest))
	}
}
