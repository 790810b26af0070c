package registry

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// shared is a host of the server as a pull has it: the authorizer uses the host's
// own client. All connections to unencrypted hosts go to plain, whatever they are called.
func shared(s, plain *hostile.Server) docker.RegistryHost {
	host := s.RegistryHost(pullResolve)
	host.Client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != s.Host() {
			address = plain.Host()
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	return withSession(host, host.Client, nil)
}

// asImage authorizes a request at the server as containerd's resolver does, out of any
// guard, and returns the header.
func asImage(t *testing.T, r *Repository, host docker.RegistryHost) string {
	t.Helper()
	ctx, err := docker.ContextWithRepositoryScope(t.Context(), r.spec, false)
	if err != nil {
		t.Fatal(err)
	}
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, host.Scheme+"://"+host.Host+"/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := host.Authorizer.Authorize(ctx, req); err != nil {
			t.Fatalf("the image is not authorized: %v", err)
		}
		resp, err := host.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || try == 1 {
			return req.Header.Get("Authorization")
		}
		if err := host.Authorizer.AddResponses(ctx, []*http.Response{resp}); err != nil {
			t.Fatal(err)
		}
	}
}

// A token service must not lead to where a challenge may not: what answers there goes to the
// registry, as a token. The image's own pull goes where containerd goes, before and after.
func TestRedirectsOfATokenServiceAreGuarded(t *testing.T) {
	for _, tc := range []struct {
		name    string
		plain   bool     // the registry and its token service are not encrypted
		via     []string // where each redirect leads, from /token on
		refused string   // "" where it is not
	}{
		{"within the service", false, []string{"/token/"}, ""},
		{"no encryption", false, []string{"http://tokens.test/token/"}, "it is not encrypted"},
		{"no encryption, at the second redirect", false, []string{"/second", "http://tokens.test/token/"}, "it is not encrypted"},
		{"metadata service", false, []string{"http://169.254.169.254/latest/"}, "it is not encrypted"},
		{"metadata service, encrypted", false, []string{"https://169.254.169.254/latest/"}, "link-local address"},
		{"without encryption all the way", true, []string{"http://tokens.test/token/"}, ""},
		{"metadata service, without encryption all the way", true, []string{"http://169.254.169.254/latest/"}, "link-local address"},
		{"metadata service, a number", true, []string{"http://2852039166/latest/"}, "link-local address"},
		{"metadata service, at the second redirect", true, []string{"http://tokens.test/second", "http://169.254.169.254/latest/"}, "link-local address"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plain := hostile.New(t)
			s := plain
			if !tc.plain {
				s = hostile.NewTLS(t)
			}
			host := shared(s, plain)
			s.On("/token", redirect(tc.via[0]))
			for _, server := range []*hostile.Server{s, plain} {
				server.On("/second", redirect(tc.via[len(tc.via)-1]))
				server.On("/token/", issued("theirs"))
				server.On("/latest/", issued("secret of the cloud"))
			}
			s.On("/a", challenging(s.URL()+"/token", ""), hostile.Content("application/json", nil))
			r := newRepository(t, s.Host(), quick, host)
			a, err := fetch(t, r, "/a")
			if tc.refused == "" {
				if err != nil || a.Code != http.StatusOK || !slices.Equal(authorizations(s, "/a"), []string{"", "Bearer theirs"}) {
					t.Errorf("%v, authorized with %q, want the token", err, authorizations(s, "/a"))
				}
				return
			}
			if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), tc.refused) {
				t.Errorf("%v, want ErrPermissionDenied that says %q", err, tc.refused)
			}
			if got := append(authorizations(plain, "/token/"), authorizations(plain, "/latest/")...); len(got) > 0 {
				t.Errorf("%d requests went where they must not", len(got))
			}
			if r.hosts[0].Down() != nil {
				t.Errorf("the registry is down for its token service: %v", r.hosts[0].Down())
			}
			if strings.HasPrefix(tc.via[len(tc.via)-1], "https://169") {
				return // no one answers there
			}
			// The authorizer, which is the image's, has not kept the refusal.
			s.On("/a", challenging(s.URL()+"/token", ""), hostile.Content("application/json", nil))
			if got := asImage(t, r, host); got != "Bearer theirs" && got != "Bearer secret of the cloud" {
				t.Errorf("the image is authorized with %q, want what it is without referrers", got)
			}
		})
	}
}
