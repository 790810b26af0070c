package registry

import (
	"net/http"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

func TestRealmsThatAreRefused(t *testing.T) {
	for name, realm := range map[string]string{
		"no encryption":              "http://tokens.test/token",
		"metadata service":           "https://169.254.169.254/latest",
		"metadata service in IPv6":   "https://[fd00:ec2::254]/latest",
		"metadata service, a number": "https://2852039166/latest",
	} {
		t.Run(name, func(t *testing.T) {
			s := hostile.NewTLS(t)
			s.On("/a", challenging(realm, ""))
			host := withSession(s.RegistryHost(pullResolve), &http.Client{Transport: noTransport{t}}, func(string) (string, string, error) {
				t.Error("credentials were asked for")
				return "user", "secret", nil
			})
			_, err := fetch(t, newRepository(t, s.Host(), quick, host), "/a")
			if !errdefs.IsPermissionDenied(err) {
				t.Errorf("%v, want ErrPermissionDenied", err)
			}
			if got := len(s.Requests()); got != 1 {
				t.Errorf("%d requests, want 1", got)
			}
		})
	}
}

// noTransport is for clients that must not be used.
type noTransport struct{ t *testing.T }

func (n noTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	n.t.Errorf("%s %s was requested", req.Method, req.URL)
	return nil, errdefs.ErrPermissionDenied
}
