package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fickle is a registry that decides by its own rule.
type fickle struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string // "PATH AUTHORIZATION"
	rule  http.HandlerFunc
}

func newFickle(t *testing.T) *fickle {
	t.Helper()
	f := &fickle{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		rule := f.rule
		f.asked = append(f.asked, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Authorization")))
		f.mu.Unlock()
		rule(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fickle) host() string { return strings.TrimPrefix(f.URL, "http://") }

// answers sets the rule, and forgets what was asked.
func (f *fickle) answers(rule http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rule, f.asked = rule, nil
}

func (f *fickle) paths() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.asked...)
}

// challenge answers 401 with a challenge for a token.
func (f *fickle) challenge(w http.ResponseWriter, realm, more string) {
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s%s",service="test"%s`, f.URL, realm, more))
	w.WriteHeader(http.StatusUnauthorized)
}

func issue(w http.ResponseWriter, name string) {
	fmt.Fprintf(w, `{"token":%q,"access_token":%q,"expires_in":300}`, name, name)
}

func giveImage(w http.ResponseWriter) {
	w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	w.Header().Set("Docker-Content-Digest", digest.FromString("{}").String())
	_, _ = io.WriteString(w, "{}") // a client that has left is no concern here
}

// resolves resolves name:v1 of the registry as one pull does: with the sessions, or as containerd
// does where they are nil.
func resolves(t *testing.T, s *Sessions, registry, name string, options config.HostOptions) error {
	t.Helper()
	hosts := config.ConfigureHosts(t.Context(), options)
	if s != nil {
		hosts = func(string) ([]docker.RegistryHost, error) { return s.Hosts(t.Context(), registry, options) }
	}
	known, err := hosts(registry)
	if err != nil {
		t.Fatal(err)
	}
	r := docker.NewResolver(docker.ResolverOptions{Hosts: func(string) ([]docker.RegistryHost, error) { return known, nil }})
	_, _, err = r.Resolve(t.Context(), registry+"/"+name+":v1")
	if err == nil && s != nil {
		settle(known)
	}
	return err
}

// A pull that containerd's own client can make succeeds, whatever is remembered.
func TestMemoryFailsNoPull(t *testing.T) {
	for name, tc := range map[string]struct {
		first, then string // repositories
		before      func(*fickle) http.HandlerFunc
		now         func(*fickle) http.HandlerFunc
	}{
		"a token that may no longer is refused with 403": {
			"app", "app",
			func(f *fickle) http.HandlerFunc { return f.tokens("old", 0) },
			func(f *fickle) http.HandlerFunc { return f.tokens("new", http.StatusForbidden) },
		},
		"a token that may no longer is refused with 404": {
			"app", "app",
			func(f *fickle) http.HandlerFunc { return f.tokens("old", 0) },
			func(f *fickle) http.HandlerFunc { return f.tokens("new", http.StatusNotFound) },
		},
		"a token that may no longer is refused with 400": {
			"app", "app",
			func(f *fickle) http.HandlerFunc { return f.tokens("old", 0) },
			func(f *fickle) http.HandlerFunc { return f.tokens("new", http.StatusBadRequest) },
		},
		"a token could not even be sent": {
			"app", "app",
			func(f *fickle) http.HandlerFunc { return f.tokens("a\nb", 0) },
			func(f *fickle) http.HandlerFunc { return f.tokens("new", 0) },
		},
		"repositories have token services of their own": {
			"a", "b",
			func(f *fickle) http.HandlerFunc { return f.realms },
			func(f *fickle) http.HandlerFunc { return f.realms },
		},
		"a public repository beside one that is not, for a wrong password": {
			"private", "public",
			func(*fickle) http.HandlerFunc { return basic },
			func(*fickle) http.HandlerFunc { return basic },
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFickle(t)
			sessions := &Sessions{}
			f.answers(tc.before(f))
			_ = resolves(t, sessions, f.host(), tc.first, plain(user("a")))
			f.answers(tc.now(f))
			if err := resolves(t, nil, f.host(), tc.then, plain(user("a"))); err != nil {
				t.Fatalf("containerd's own client fails: %v", err)
			}
			f.answers(tc.now(f))
			if err := resolves(t, sessions, f.host(), tc.then, plain(user("a"))); err != nil {
				t.Errorf("%v, asked %q", err, f.paths())
			}
		})
	}
}

// tokens lets in who has the token, and refuses another with the code.
func (f *fickle) tokens(name string, code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			issue(w, name)
		case r.Header.Get("Authorization") == "Bearer "+name:
			giveImage(w)
		case r.Header.Get("Authorization") == "":
			f.challenge(w, "/token", "")
		default:
			w.WriteHeader(code)
		}
	}
}

// realms has a token service for each repository.
func (f *fickle) realms(w http.ResponseWriter, r *http.Request) {
	if name, ok := strings.CutPrefix(r.URL.Path, "/token/"); ok {
		issue(w, name)
		return
	}
	name := strings.Split(r.URL.Path, "/")[2]
	switch r.Header.Get("Authorization") {
	case "":
		f.challenge(w, "/token/"+name, "")
	case "Bearer " + name:
		giveImage(w)
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}

// basic knows no user at all.
func basic(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") == "" && strings.HasPrefix(r.URL.Path, "/v2/public/") {
		giveImage(w)
		return
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
	w.WriteHeader(http.StatusUnauthorized)
}

// A token service that is remembered and does not answer is not waited for.
func TestRememberedTokenServiceIsNotWaitedFor(t *testing.T) {
	f := newFickle(t)
	sessions := &Sessions{}
	f.answers(f.tokens("old", 0))
	if err := resolves(t, sessions, f.host(), "app", plain(nil)); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	defer close(release)
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			<-release
		case r.URL.Path == "/moved":
			issue(w, "moved")
		case r.Header.Get("Authorization") == "Bearer moved":
			giveImage(w)
		default:
			f.challenge(w, "/moved", "")
		}
	})
	began := time.Now()
	if err := resolves(t, sessions, f.host(), "other", plain(nil)); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the pull took %s", took)
	}
}

// A challenge whose scope is not the repository's is met anew by each pull, which then finds
// the token.
func TestChallengeWithAScopeOfItsOwnIsNotRemembered(t *testing.T) {
	f := newFickle(t)
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			issue(w, strings.Join(r.URL.Query()["scope"], "+"))
		case strings.Contains(r.Header.Get("Authorization"), "repository:proxy/app:pull"):
			giveImage(w)
		default:
			f.challenge(w, "/token", `,scope="repository:proxy/app:pull"`)
		}
	})
	sessions := &Sessions{}
	for range 2 {
		if err := resolves(t, sessions, f.host(), "app", plain(nil)); err != nil {
			t.Fatal(err)
		}
	}
	tokens := 0
	for _, p := range f.paths() {
		if p == "/token" {
			tokens++
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens were fetched, want one: %q", tokens, f.paths())
	}
}

// Hosts that hosts.toml tells apart, by headers or by TLS, share no token: what one's client
// was given is not what the other's would be.
func TestHostsShareNoToken(t *testing.T) {
	mirror, f := newFickle(t), newFickle(t)
	rule := func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			issue(w, "for "+r.Header.Get("X-Tenant"))
		case r.Header.Get("Authorization") == "Bearer for registry" && r.Host == f.host():
			giveImage(w)
		case r.Header.Get("Authorization") == "Bearer for mirror" && r.Host == mirror.host():
			w.WriteHeader(http.StatusNotFound)
		default:
			f.challenge(w, "/token", "")
		}
	}
	mirror.answers(rule)
	f.answers(rule)
	dir := t.TempDir()
	text := fmt.Sprintf("server = %q\n[header]\nX-Tenant = \"registry\"\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n[host.%q.header]\nX-Tenant = \"mirror\"\n", f.URL, mirror.URL, mirror.URL)
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	options := config.HostOptions{HostDir: func(string) (string, error) { return dir, nil }}
	for name, sessions := range map[string]*Sessions{"containerd's own client": nil, "a session": {}} {
		if err := resolves(t, sessions, f.host(), "app", options); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A pull keeps a token that does not say when it expires, as containerd does: its service need
// not be there for as long as the pull takes.
func TestTokenWithoutATimeLastsAPull(t *testing.T) {
	var known tokens
	began := time.Now()
	get := func(pull time.Time) string {
		token, err := known.get(t.Context(), tokenKey{}, time.Time{}, pull, func(context.Context) (string, time.Duration, error) {
			return fmt.Sprint("asked by ", pull.Equal(began)), 0, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return token.value
	}
	get(began)
	known.known[tokenKey{}].expires = time.Now().Add(-time.Second)
	if got := get(began); got != "asked by true" {
		t.Errorf("%q", got)
	}
	later := time.Now().Add(time.Second)
	known.known[tokenKey{}].expires = time.Now().Add(-time.Second)
	if got := get(later); got != "asked by false" {
		t.Errorf("%q: another pull has what has expired", got)
	}
}

// A pull whose debugging hangs holds up no other: its client's stream may not be read.
func TestPullIsNotHeldUpByAnothersDebugging(t *testing.T) {
	f := newFickle(t)
	f.answers(f.tokens("t", 0))
	sessions := &Sessions{}
	release, hangs := make(chan struct{}), make(chan struct{}, 8)
	debugging := plain(nil)
	debugging.UpdateClient = func(c *http.Client) error {
		inner := c.Transport
		c.Transport = roundTripperFunc(func(req *http.Request) (*http.Response, error) {
			if req.URL.Path == "/token" {
				hangs <- struct{}{}
				<-release
			}
			return inner.RoundTrip(req)
		})
		return nil
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(release)
	wg.Go(func() { _ = resolves(t, sessions, f.host(), "app", debugging) })
	<-hangs
	done := make(chan error, 1)
	wg.Go(func() { done <- resolves(t, sessions, f.host(), "app", plain(nil)) })
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the other pull waits")
	}
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// A registry on localhost is asked over TLS and then without, in each pull.
func TestLocalRegistryWithoutTLS(t *testing.T) {
	f := newFickle(t)
	f.answers(f.tokens("t", 0))
	sessions := &Sessions{}
	for range 3 {
		if err := resolves(t, sessions, f.host(), "app", config.HostOptions{}); err != nil {
			t.Error(err)
		}
	}
	if got := len(f.paths()); got != 5 {
		t.Errorf("%d requests: %q", got, f.paths())
	}
}

// A token service that closes the connection of an earlier pull as it is asked is asked anew.
func TestTokenServiceClosesAnIdleConnection(t *testing.T) {
	f := newFickle(t)
	asked := map[string]bool{}
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
		case r.Header.Get("Authorization") != "":
			giveImage(w)
			return
		default:
			f.challenge(w, "/token", `,scope="repository:other:pull"`) // not remembered
			return
		}
		if asked[r.RemoteAddr] {
			panic(http.ErrAbortHandler)
		}
		asked[r.RemoteAddr] = true
		issue(w, "t")
	})
	sessions := &Sessions{}
	for n := range 3 {
		if err := resolves(t, sessions, f.host(), "app", plain(user(fmt.Sprint("user", n)))); err != nil {
			t.Error(err)
		}
	}
}
