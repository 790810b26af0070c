package registry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// bearer authorizes every request with the same token.
type bearer struct{}

func (bearer) Authorize(_ context.Context, req *http.Request) error {
	req.Header.Set("Authorization", "Bearer secret")
	return nil
}

func (bearer) AddResponses(context.Context, []*http.Response) error { return nil }

func redirect(to string) hostile.Answer {
	return hostile.Status(http.StatusTemporaryRedirect).With("Location", to)
}

// secretive is a host of the server with credentials and headers of the
// operator's.
func secretive(s *hostile.Server) docker.RegistryHost {
	host := s.RegistryHost(pullResolve)
	host.Authorizer = bearer{}
	host.Header = http.Header{"X-Host": {"secret"}, "Cookie": {"secret=1"}}
	return host
}

func TestRedirectWithinTheHostKeepsHeaders(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", redirect("/b"))
	s.On("/b", hostile.Content("application/json", []byte("{}")))
	a, err := fetch(t, newRepository(t, s.Host(), quick, secretive(s)), "/a")
	if err != nil || string(a.Body) != "{}" || a.URL.Path != "/b" {
		t.Fatalf("%v, want the answer of /b", err)
	}
	header := s.Requests()[1].Header
	for key, want := range map[string]string{"Authorization": "Bearer secret", "X-Host": "secret", "X-Operator": "global"} {
		if got := header.Get(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestRedirectElsewhereTakesNoSecretsAlong(t *testing.T) {
	for _, code := range []int{301, 302, 303, 307, 308} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			s, storage := hostile.New(t), hostile.New(t)
			s.On("/a", hostile.Status(code).With("Location", storage.URL()+"/blob?signature=x"))
			// The second hop stays with the stranger: nothing may come back.
			storage.On("/blob", redirect("/there"))
			storage.On("/there", hostile.Content("application/json", []byte("{}")))
			a, err := fetch(t, newRepository(t, s.Host(), quick, secretive(s)), "/a")
			if err != nil || string(a.Body) != "{}" || a.URL.Host != storage.Host() {
				t.Fatalf("%v, want the storage's answer", err)
			}
			if got := s.Requests()[0].Header.Get("Authorization"); got != "Bearer secret" {
				t.Fatalf("the registry itself got Authorization %q", got)
			}
			if got, want := storage.Paths(), []string{"/blob", "/there"}; !slices.Equal(got, want) {
				t.Fatalf("the storage was asked for %q, want %q", got, want)
			}
			for _, request := range storage.Requests() {
				for key := range request.Header {
					if !slices.Contains([]string{"Accept", "Accept-Encoding", "User-Agent", "Referer"}, key) {
						t.Errorf("%s got the header %s: %q", request.Path, key, request.Header.Values(key))
					}
				}
				if request.Header.Get("Accept-Encoding") != "identity" || request.Header.Get("Accept") != "application/json" {
					t.Errorf("%s lost what was asked for: %v", request.Path, request.Header)
				}
			}
			if got := storage.Requests()[0].Header.Get("Referer"); got != "" {
				t.Errorf("the storage was told where from: %q", got)
			}
		})
	}
}

func TestSameOrigin(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"https://r.test/a", "https://r.test/b", true},
		{"https://r.test/a", "https://R.Test:443/b", true},
		{"http://r.test:80/a", "http://r.test/b", true},
		{"https://r.test/a", "https://r.test:80/b", false},
		{"http://r.test/a", "https://r.test/b", false},
		{"https://r.test/a", "https://other.test/a", false},
		{"https://[::1]:5000/a", "https://[::1]:5000/b", true},
	} {
		a, err := url.Parse(tc.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := url.Parse(tc.b)
		if err != nil {
			t.Fatal(err)
		}
		if sameOrigin(a, b) != tc.want || sameOrigin(b, a) != tc.want {
			t.Errorf("%s and %s: want %t", tc.a, tc.b, tc.want)
		}
	}
}

func TestRedirectsAreCounted(t *testing.T) {
	s := hostile.New(t)
	s.On("/5", redirect("/4"))
	s.On("/4", redirect("/3"))
	s.On("/3", redirect("/2"))
	s.On("/2", redirect("/1"))
	s.On("/1", redirect("/0"))
	s.On("/0", hostile.Answer{})
	r := alone(t, s, quick)
	if a, err := fetch(t, r, "/5"); err != nil || a.Code != http.StatusOK {
		t.Errorf("five redirects: %v, want the answer", err)
	}
	if got := len(s.Requests()); got != 6 {
		t.Errorf("five redirects: %d requests, want 6", got)
	}
	s.On("/6", redirect("/5"))
	if _, err := fetch(t, r, "/6"); !errdefs.IsResourceExhausted(err) {
		t.Errorf("six redirects: %v, want errdefs.ErrResourceExhausted", err)
	}
	s.On("/loop", redirect("/loop"))
	if _, err := fetch(t, r, "/loop"); !errdefs.IsResourceExhausted(err) {
		t.Errorf("a loop: %v, want errdefs.ErrResourceExhausted", err)
	}
	if got := len(s.Requests()); got != 3*6 {
		t.Errorf("%d requests, want 6 for each chain", got)
	}
}

func TestRedirectsThatAreRefused(t *testing.T) {
	plain, secure := hostile.New(t), hostile.NewTLS(t)
	for _, tc := range []struct {
		name string
		from *hostile.Server
		to   string
	}{
		{"from https to http", secure, plain.URL() + "/x"},
		{"to another scheme", plain, "ftp://127.0.0.1/x"},
		{"to a file", plain, "file:///etc/hostname"},
		{"to a cloud's metadata service", plain, "http://169.254.169.254/latest/meta-data/"},
		{"to it, with a port", plain, "http://169.254.169.254:80/latest/meta-data/"},
		{"to it, mapped into IPv6", plain, "http://[::ffff:169.254.169.254]/latest/meta-data/"},
		{"to a link-local address of IPv6", plain, "http://[fe80::1]/"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.from.On("/a", redirect(tc.to))
			host := secretive(tc.from)
			var mu sync.Mutex
			var dialled []string
			countDials(&host, func(address string) {
				mu.Lock()
				defer mu.Unlock()
				dialled = append(dialled, address)
			})
			before := len(tc.from.Requests())
			_, err := fetch(t, newRepository(t, tc.from.Host(), quick, host), "/a")
			if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "refused redirect") {
				t.Errorf("%v, want a refused redirect", err)
			}
			if want := []string{tc.from.Host()}; !slices.Equal(dialled, want) {
				t.Errorf("dialled %q, want %q", dialled, want)
			}
			if got := len(tc.from.Requests()) - before; got != 1 {
				t.Errorf("%d requests, want 1: what is refused is not tried again", got)
			}
		})
	}
	if got := plain.Paths(); slices.Contains(got, "/x") {
		t.Errorf("the plain server was asked: %q", got)
	}
}

func TestRedirectToEncryptionIsFollowed(t *testing.T) {
	plain, secure := hostile.New(t), hostile.NewTLS(t)
	plain.On("/a", redirect(secure.URL()+"/b"))
	secure.On("/b", hostile.Answer{})
	host := plain.RegistryHost(pullResolve)
	host.Client.Transport = secure.Transport()
	if a, err := fetch(t, newRepository(t, plain.Host(), quick, host), "/a"); err != nil || a.Code != http.StatusOK {
		t.Errorf("%v, want the answer", err)
	}
}

func TestLinkLocalRegistryMayRedirectToItself(t *testing.T) {
	// Whoever runs the registry at such an address meant it.
	r := alone(t, hostile.New(t), quick)
	first := httptest.NewRequest(http.MethodGet, "http://169.254.1.1/a", nil)
	next := httptest.NewRequest(http.MethodGet, "http://169.254.1.1/b", nil)
	if err := r.checkRedirect(next, []*http.Request{first}); err != nil {
		t.Error(err)
	}
	next.URL = &url.URL{Scheme: "gopher", Host: "169.254.1.1"}
	if err := r.checkRedirect(next, []*http.Request{first}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("%v, want errdefs.ErrPermissionDenied", err)
	}
}
