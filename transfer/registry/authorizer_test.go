package registry

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// For every way in which a registry can ask requests of ours for authorization, the image
// is resolved with the requests that it makes where ours are answered, before and after
// them, in this pull and in the next.
func TestOurChallengesDoNotInterfere(t *testing.T) {
	ours := repository + "referrers/x"
	for name, answer := range map[string]func(*hostile.Server) hostile.Answer{
		"honest":                     func(*hostile.Server) hostile.Answer { return hostile.Index() },
		"another realm that refuses": func(s *hostile.Server) hostile.Answer { return challenging(s.URL()+"/refuses", "") },
		"another realm that hangs":   func(s *hostile.Server) hostile.Answer { return challenging(s.URL()+"/hangs", "") },
		"the realm, a wider scope": func(s *hostile.Server) hostile.Answer {
			return challenging(s.URL()+"/token", `,scope="registry:catalog:*"`)
		},
		"the token is called invalid": func(s *hostile.Server) hostile.Answer { return challenging(s.URL()+"/token", `,error="invalid_token"`) },
		"Basic": func(*hostile.Server) hostile.Answer {
			return hostile.Status(401).With("WWW-Authenticate", `Basic realm="r"`)
		},
		"no challenge":                   func(*hostile.Server) hostile.Answer { return hostile.Status(401) },
		"a realm that cannot be read":    func(*hostile.Server) hostile.Answer { return challenging("http://[", "") },
		"a realm at the metadata server": func(*hostile.Server) hostile.Answer { return challenging("http://169.254.169.254/", "") },
		"403":                            func(*hostile.Server) hostile.Answer { return hostile.Status(403) },
	} {
		t.Run(name, func(t *testing.T) {
			s := hostile.New(t)
			s.On("/token", issued("image"), issued("other"))
			s.On("/refuses", hostile.Status(http.StatusForbidden))
			s.On("/hangs", hostile.Answer{Stall: true})
			s.On(imageTag, challenging(s.URL()+"/token", ""), image())
			s.On(ours, answer(s))
			sessions := &Sessions{}
			limits := quick
			limits.Request, limits.Attempts = short, 1
			for range 2 {
				hosts, err := pullOf(t, sessions, s.Host(), plain(user("a")))
				if err != nil {
					t.Log(s.Paths())
					t.Fatal(err)
				}
				r := newRepository(t, s.Host(), limits, hosts...)
				for range 2 {
					_, _ = fetch(t, r, ours) // fails as it is scripted to
				}
				// As the fetcher of the same pull.
				ctx, err := docker.ContextWithRepositoryScope(t.Context(), r.spec, false)
				if err != nil {
					t.Fatal(err)
				}
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+imageTag, nil)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if err := hosts[0].Authorizer.Authorize(ctx, req); err != nil {
					t.Errorf("the image is no longer authorized: %v", err)
				}
				if took := time.Since(began); took > short/2 {
					t.Errorf("the image waited %s", took)
				}
			}
			if got, want := authorizations(s, imageTag), []string{"", "Bearer image", "Bearer image"}; !slices.Equal(got, want) {
				t.Errorf("the image's requests were authorized with %q, want %q", got, want)
			}
		})
	}
}
