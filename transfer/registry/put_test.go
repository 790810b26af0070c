package registry

import (
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

func forPush(t *testing.T, s *hostile.Server) (*Repository, *Host) {
	t.Helper()
	r, err := newRepository(t, s.Host(), quick, s.RegistryHost(docker.HostCapabilityPush)).ForPush()
	if err != nil {
		t.Fatal(err)
	}
	return r, r.Hosts(docker.HostCapabilityPush)[0]
}

// Pushes go to one host, the first that may push, which is then asked all else.
func TestForPush(t *testing.T) {
	mirror, first, second := hostile.New(t), hostile.New(t), hostile.New(t)
	r, err := newRepository(t, "registry.test", quick, mirror.RegistryHost(pullResolve),
		first.RegistryHost(docker.HostCapabilityPush), second.RegistryHost(docker.HostCapabilityPush)).ForPush()
	if err != nil {
		t.Fatal(err)
	}
	hosts := r.Hosts(pullResolve | docker.HostCapabilityReferrers)
	if len(hosts) != 1 || hosts[0].Host != first.Host() {
		t.Errorf("pushes go to %v", hosts)
	}
	if _, err := newRepository(t, "registry.test", quick, mirror.RegistryHost(pullResolve)).ForPush(); !errdefs.IsNotFound(err) {
		t.Errorf("no host may push: %v", err)
	}
}

func TestPutManifest(t *testing.T) {
	s := hostile.New(t)
	r, h := forPush(t, s)
	path := "/v2/test/app/manifests/v1"
	s.On(path, hostile.Status(http.StatusServiceUnavailable), hostile.Status(http.StatusCreated).With("OCI-Subject", "x"))
	header, err := r.PutManifest(t.Context(), h, "v1", ocispec.MediaTypeImageManifest, []byte("body"))
	if err != nil || header.Get("OCI-Subject") != "x" {
		t.Errorf("%v, %v", header, err)
	}
	requests := s.Requests()
	if len(requests) != 2 {
		t.Fatalf("%d requests, want 2", len(requests))
	}
	for _, q := range requests {
		if q.Method != http.MethodPut || string(q.Body) != "body" || q.Header.Get("Content-Type") != ocispec.MediaTypeImageManifest || q.Header.Get("X-Operator") != "global" {
			t.Errorf("%+v", q)
		}
	}
}

// A body is not sent to another host, nor lost on the way, and what a registry
// complains of is part of the error, fit for a log.
func TestPutManifestRefused(t *testing.T) {
	other := hostile.New(t)
	for _, tc := range []struct {
		name   string
		answer hostile.Answer
		says   string
	}{
		{"another host", hostile.Status(http.StatusTemporaryRedirect).With("Location", other.URL()+"/x"), "307"},
		{"a redirect that becomes a GET", hostile.Status(http.StatusFound).With("Location", "/v2/"), "302"},
		{"a complaint", hostile.Answer{Code: http.StatusBadRequest, Body: []byte("blob\x1b[2J unknown\n")}, "400 Bad Request: blob [2J unknown: "},
		{"a long complaint", hostile.Answer{Code: http.StatusBadRequest, Body: []byte(strings.Repeat("x", 1<<20))}, strings.Repeat("x", 1<<10) + ": "},
		{"an endless complaint", hostile.Answer{Code: http.StatusBadRequest, Body: []byte("x"), Endless: true}, "400"},
		{"a complaint that never comes", hostile.Answer{Code: http.StatusForbidden, Announce: 10, Stall: true}, "403"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hostile.New(t)
			s.On("/v2/test/app/manifests/v1", tc.answer)
			s.On("/v2/", hostile.Status(http.StatusOK))
			r, h := forPush(t, s)
			_, err := r.PutManifest(t.Context(), h, "v1", ocispec.MediaTypeImageManifest, []byte("body"))
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("the error does not say %q: %v", tc.says, err)
			}
			if n := len(s.Requests()); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
	if n := len(other.Requests()); n != 0 {
		t.Errorf("another host got %d requests", n)
	}
}

func TestHas(t *testing.T) {
	dgst := digest.FromString("manifest")
	for code, want := range map[int]bool{http.StatusOK: true, http.StatusNotFound: false} {
		s := hostile.New(t)
		s.On("/v2/test/app/manifests/"+dgst.String(), hostile.Status(code))
		r, h := forPush(t, s)
		if got, err := r.Has(t.Context(), h, ocispec.MediaTypeImageManifest, dgst); err != nil || got != want {
			t.Errorf("%d: %v, %v", code, got, err)
		}
		if q := s.Requests()[0]; q.Method != http.MethodHead {
			t.Errorf("%+v", q)
		}
	}
	for _, code := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusBadGateway, http.StatusNoContent} {
		s := hostile.New(t)
		s.On("/v2/test/app/manifests/"+dgst.String(), hostile.Status(code))
		r, h := forPush(t, s)
		if _, err := r.Has(t.Context(), h, ocispec.MediaTypeImageManifest, dgst); err == nil {
			t.Errorf("%d is taken for an answer", code)
		}
	}
}

// A push asks what is listed: its repository can do that like any other.
func TestRepositoryOfAPushLists(t *testing.T) {
	s := hostile.New(t)
	s.On(api, hostile.Index(entry(1)))
	r, err := repositoryAt(t, s.Host(), twice, s.RegistryHost(byDefault)).ForPush()
	if err != nil {
		t.Fatal(err)
	}
	if l, err := r.List(t.Context(), subject); err != nil || l.Status != labels.Present {
		t.Errorf("%s, %v, want present", l.Status, err)
	}
}
