package registry

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// challenging answers 401 and names a token service.
func challenging(realm, more string) hostile.Answer {
	return hostile.Status(http.StatusUnauthorized).
		With("WWW-Authenticate", `Bearer realm="`+realm+`",service="test"`+more)
}

func issued(name string) hostile.Answer {
	return hostile.Content("application/json", []byte(`{"token":"`+name+`","access_token":"`+name+`","expires_in":3600}`))
}

// guarded is a host of the server as a pull's session has it, with credentials.
func guarded(s *hostile.Server) docker.RegistryHost {
	return withSession(s.RegistryHost(pullResolve), &http.Client{Transport: s.Transport()},
		func(string) (string, string, error) { return "user", "secret", nil })
}

// withSession returns the host with an authorizer of a session of its own, as the image's
// requests have it.
func withSession(host docker.RegistryHost, client *http.Client, credentials func(string) (string, string, error)) docker.RegistryHost {
	s := &session{sessions: &Sessions{}, hosts: []docker.RegistryHost{host}, challenges: map[string]challenge{}, healths: map[string]*health{}}
	host.Authorizer = &Authorizer{session: s, client: client, credentials: credentials, began: time.Now()}
	return host
}

// authorizations returns what each request for the path was authorized with.
func authorizations(s *hostile.Server, path string) []string {
	var out []string
	for _, r := range s.Requests() {
		if r.Path == path {
			out = append(out, r.Header.Get("Authorization"))
		}
	}
	return out
}

func TestTokenThatRunsOutHalfWayIsRenewed(t *testing.T) {
	s := hostile.New(t)
	s.On("/token", issued("first"), issued("second"))
	ok := hostile.Content("application/json", []byte("{}"))
	s.On("/a", challenging(s.URL()+"/token", ""), ok)
	s.On("/b", challenging(s.URL()+"/token", `,error="invalid_token"`), ok)
	s.On("/c", ok)
	r := newRepository(t, s.Host(), quick, guarded(s))
	for _, path := range []string{"/a", "/b", "/c"} {
		if a, err := fetch(t, r, path); err != nil || a.Code != http.StatusOK {
			t.Fatalf("%s: %v, want 200", path, err)
		}
	}
	if got, want := s.Paths(), []string{"/a", "/token", "/a", "/b", "/token", "/b", "/c"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
	for path, want := range map[string][]string{
		"/a": {"", "Bearer first"},
		"/b": {"Bearer first", "Bearer second"},
		"/c": {"Bearer second"},
	} {
		if got := authorizations(s, path); !slices.Equal(got, want) {
			t.Errorf("%s: authorized with %q, want %q", path, got, want)
		}
	}
}

func TestTokenThatIsRefusedIsRenewedOnce(t *testing.T) {
	s := hostile.New(t)
	s.On("/token", issued("useless"))
	s.On("/a", challenging(s.URL()+"/token", `,error="invalid_token"`))
	a, err := fetch(t, newRepository(t, s.Host(), quick, guarded(s)), "/a")
	if err != nil || a.Code != http.StatusUnauthorized {
		t.Errorf("%v, want the 401", err)
	}
	if got, want := s.Paths(), []string{"/a", "/token", "/a"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

func TestAuthorizerThatNeverGivesUpIsAskedOnce(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", hostile.Status(http.StatusUnauthorized))
	host := s.RegistryHost(pullResolve)
	host.Authorizer = bearer{}
	if a, err := fetch(t, newRepository(t, s.Host(), quick, host), "/a"); err != nil || a.Code != http.StatusUnauthorized {
		t.Errorf("%v, want the 401", err)
	}
	if got := len(s.Requests()); got != 2 {
		t.Errorf("%d requests, want 2", got)
	}
}

func TestChallengesWithoutAnAnswerAreThe401(t *testing.T) {
	for name, value := range map[string]string{
		"none":           "",
		"unknown scheme": `Negotiate`,
		"garbage":        `Bearer realm=`,
	} {
		t.Run(name, func(t *testing.T) {
			s := hostile.New(t)
			s.On("/a", hostile.Status(http.StatusUnauthorized).With("WWW-Authenticate", value))
			a, err := fetch(t, newRepository(t, s.Host(), quick, guarded(s)), "/a")
			if err == nil && a.Code != http.StatusUnauthorized {
				t.Errorf("code %d, want 401", a.Code)
			}
			if got := s.Paths(); len(got) > 2 {
				t.Errorf("asked for %q, want no more than two requests", got)
			}
		})
	}
}

func TestTokenServiceThatRefusesFailsTheRequest(t *testing.T) {
	s := hostile.New(t)
	s.On("/token", hostile.Status(http.StatusForbidden))
	s.On("/a", challenging(s.URL()+"/token", ""))
	if _, err := fetch(t, newRepository(t, s.Host(), quick, guarded(s)), "/a"); err == nil {
		t.Error("no error, want that of the token service")
	}
	if got := authorizations(s, "/a"); !slices.Equal(got, []string{""}) {
		t.Errorf("asked with %q, want once without a token", got)
	}
}

func TestRealmOnAnotherHostGetsNoHeaders(t *testing.T) {
	s, realm, storage := hostile.New(t), hostile.New(t), hostile.New(t)
	realm.On("/token", issued("issued"))
	s.On("/a", challenging(realm.URL()+"/token", ""), redirect(storage.URL()+"/blob"))
	storage.On("/blob", hostile.Answer{})
	if a, err := fetch(t, newRepository(t, s.Host(), quick, guarded(s)), "/a"); err != nil || a.Code != http.StatusOK {
		t.Fatalf("%v, want the storage's answer", err)
	}
	// The token is the registry's: the service that issued it gets the
	// password from containerd's authorizer, and nobody else gets either.
	if got, want := authorizations(s, "/a"), []string{"", "Bearer issued"}; !slices.Equal(got, want) {
		t.Errorf("the registry got %q, want %q", got, want)
	}
	if got := authorizations(storage, "/blob"); !slices.Equal(got, []string{""}) {
		t.Errorf("the storage got %q, want nothing", got)
	}
	for _, request := range realm.Requests() {
		if got := request.Header.Get("X-Operator"); got != "" {
			t.Errorf("the token service got the operator's header %q", got)
		}
	}
}

func TestChallengeOfAStrangerGetsNoCredentials(t *testing.T) {
	s, stranger := hostile.New(t), hostile.New(t)
	s.On("/a", redirect(stranger.URL()+"/blob"))
	stranger.On("/token", issued("stolen"))
	stranger.On("/blob", challenging(stranger.URL()+"/token", ""))
	a, err := fetch(t, newRepository(t, s.Host(), quick, guarded(s)), "/a")
	if err != nil || a.Code != http.StatusUnauthorized {
		t.Errorf("%v, want the stranger's 401", err)
	}
	for _, request := range stranger.Requests() {
		if request.Path == "/token" || request.Header.Get("Authorization") != "" {
			t.Errorf("the stranger was asked for %s with Authorization %q", request.Path, request.Header.Get("Authorization"))
		}
	}
}
