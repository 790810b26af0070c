package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

const (
	pull        = docker.HostCapabilityPull
	pullResolve = docker.HostCapabilityPull | docker.HostCapabilityResolve
)

// quick are limits that let a test retry at once, and that none meets by
// accident on a busy machine. Tests of a limit shorten that one.
var quick = Limits{
	Request:    10 * time.Second,
	Stall:      10 * time.Second,
	Attempts:   3,
	Backoff:    time.Millisecond,
	RetryAfter: 50 * time.Millisecond,
}

// short is a time that a test waits for a limit to strike.
const short = 200 * time.Millisecond

// newRepository returns test/app of the registry, read through the hosts.
func newRepository(t *testing.T, registry string, limits Limits, hosts ...docker.RegistryHost) *Repository {
	t.Helper()
	spec, err := reference.Parse(registry + "/test/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	return New(spec, hosts, http.Header{"X-Operator": {"global"}}, limits)
}

// alone returns test/app of a server that is its only host.
func alone(t *testing.T, s *hostile.Server, limits Limits) *Repository {
	t.Helper()
	return newRepository(t, s.Host(), limits, s.RegistryHost(pullResolve))
}

// fetch asks the repository's first host for a path of the server.
func fetch(t *testing.T, r *Repository, path string) (*Response, error) {
	t.Helper()
	h := r.Hosts(pull)[0]
	return r.Get(t.Context(), h, &url.URL{Scheme: h.Scheme, Host: h.Host, Path: path}, "application/json")
}

// countDials makes the host count its connections, by address.
func countDials(h *docker.RegistryHost, dial func(address string)) {
	transport := h.Client.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dial(address)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
}

func TestURL(t *testing.T) {
	host := func(host, path string) docker.RegistryHost {
		return docker.RegistryHost{Scheme: "https", Host: host, Path: path, Capabilities: pullResolve}
	}
	for _, tc := range []struct {
		name     string
		registry string
		host     docker.RegistryHost
		want     string
	}{
		{"the registry itself", "registry.test", host("registry.test", "/v2"), "https://registry.test/v2/test/app/tags/v1"},
		{"a mirror is told for whom", "registry.test", host("mirror.test", "/v2"), "https://mirror.test/v2/test/app/tags/v1?ns=registry.test"},
		{"a mirror with override_path", "registry.test", host("mirror.test", "/proxy/v2/hub"), "https://mirror.test/proxy/v2/hub/test/app/tags/v1?ns=registry.test"},
		{"a port makes another host", "registry.test", host("registry.test:5000", "/v2"), "https://registry.test:5000/v2/test/app/tags/v1?ns=registry.test"},
		{"Docker Hub's own name is no mirror", "docker.io", host("registry-1.docker.io", "/v2"), "https://registry-1.docker.io/v2/test/app/tags/v1"},
		{"that name is a mirror of others", "registry.test", host("registry-1.docker.io", "/v2"), "https://registry-1.docker.io/v2/test/app/tags/v1?ns=registry.test"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRepository(t, tc.registry, Limits{}, tc.host)
			if got := r.URL(r.Hosts(pull)[0], "tags", "v1").String(); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if want := tc.registry + "/test/app"; r.Name() != want {
				t.Errorf("name %q, want %q", r.Name(), want)
			}
		})
	}
}

func TestHostsKeepTheirOrderAndNeedEveryCapability(t *testing.T) {
	host := func(name string, c docker.HostCapabilities) docker.RegistryHost {
		return docker.RegistryHost{Host: name, Capabilities: c}
	}
	r := newRepository(t, "registry.test", Limits{},
		host("b", pull), host("push", docker.HostCapabilityPush), host("a", pullResolve), host("registry.test", pullResolve))
	for _, tc := range []struct {
		capabilities docker.HostCapabilities
		want         []string
	}{
		{pull, []string{"b", "a", "registry.test"}},
		{pullResolve, []string{"a", "registry.test"}},
		{docker.HostCapabilityReferrers, nil},
	} {
		var got []string
		for _, h := range r.Hosts(tc.capabilities) {
			got = append(got, h.Host)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("capabilities %b: %q, want %q", tc.capabilities, got, tc.want)
		}
	}
}

func TestZeroLimitsAreTheDefaults(t *testing.T) {
	if got := (Limits{}).withDefaults(); got != DefaultLimits {
		t.Errorf("got %+v, want %+v", got, DefaultLimits)
	}
	own := Limits{Request: 1, Stall: 2, StallBytes: 3, Attempts: 4, Backoff: 5, RetryAfter: 6, Redirects: 7}
	if got := own.withDefaults(); got != own {
		t.Errorf("got %+v, want %+v", got, own)
	}
}

func TestRequestHeaders(t *testing.T) {
	s := hostile.New(t)
	host := s.RegistryHost(pullResolve)
	host.Header = http.Header{"X-Host": {"one", "two"}}
	spec, err := reference.Parse(s.Host() + "/test/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	global := http.Header{"Accept": {"text/html"}, "X-Operator": {"global"}}
	r := New(spec, []docker.RegistryHost{host}, global, quick)
	for range 2 { // a second request must not inherit what the first added
		if _, err := fetch(t, r, "/a"); err != nil {
			t.Fatal(err)
		}
	}
	for i, request := range s.Requests() {
		for key, want := range map[string][]string{
			"Accept":          {"application/json"},
			"Accept-Encoding": {"identity"},
			"X-Operator":      {"global"},
			"X-Host":          {"one", "two"},
		} {
			if got := request.Header.Values(key); !slices.Equal(got, want) {
				t.Errorf("request %d: %s: %q, want %q", i, key, got, want)
			}
		}
		if got := request.Header.Get("User-Agent"); len(got) < len("containerd/1") || got[:len("containerd/")] != "containerd/" {
			t.Errorf("request %d: User-Agent %q, want containerd's", i, got)
		}
	}
	if got := global.Get("Accept"); got != "text/html" {
		t.Errorf("the caller's headers were changed: Accept is %q", got)
	}

	r = New(spec, []docker.RegistryHost{host}, http.Header{"User-Agent": {"mine"}}, quick)
	if _, err := fetch(t, r, "/b"); err != nil {
		t.Fatal(err)
	}
	if got := s.Requests()[2].Header.Values("User-Agent"); !slices.Equal(got, []string{"mine"}) {
		t.Errorf("User-Agent %q, want the caller's", got)
	}
}

func TestHostThatRefusesConnectionsIsNotAskedAgain(t *testing.T) {
	address, _ := closedPort(t)
	var dialed atomic.Int32
	host := docker.RegistryHost{Client: &http.Client{Transport: &http.Transport{}}, Scheme: "http", Host: address, Path: "/v2", Capabilities: pullResolve}
	countDials(&host, func(string) { dialed.Add(1) })
	r := newRepository(t, address, quick, host)
	if down := r.Hosts(pull)[0].Down(); down != nil {
		t.Fatalf("down before it was asked: %v", down)
	}
	for range 3 {
		var op *net.OpError
		if _, err := fetch(t, r, "/a"); !errors.As(err, &op) || op.Op != "dial" {
			t.Errorf("%v, want the dial's error", err)
		}
	}
	if got := dialed.Load(); got != dials { // all of them by the first request
		t.Errorf("%d dials, want %d", got, dials)
	}
	if r.Hosts(pull)[0].Down() == nil {
		t.Error("the host is not marked down")
	}
}

func TestHostThatAnswersIsNeverDown(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", hostile.Status(http.StatusServiceUnavailable))
	s.On("/b", hostile.Answer{Drop: true})
	r := alone(t, s, quick)
	for _, path := range []string{"/a", "/b"} {
		_, _ = fetch(t, r, path)
		if down := r.Hosts(pull)[0].Down(); down != nil {
			t.Errorf("%s: down: %v", path, down)
		}
	}
}
