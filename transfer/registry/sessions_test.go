package registry

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// counters is an Observer.
type counters struct{ connected, requested, fetched, remembered atomic.Int32 }

func (c *counters) Connected()       { c.connected.Add(1) }
func (c *counters) Requested(string) { c.requested.Add(1) }
func (c *counters) Authorized(remembered bool) {
	if remembered {
		c.remembered.Add(1)
	} else {
		c.fetched.Add(1)
	}
}

// plain has a server asked without TLS and without hosts.toml.
func plain(credentials func(string) (string, string, error)) config.HostOptions {
	return config.HostOptions{DefaultScheme: "http", Credentials: credentials}
}

func user(name string) func(string) (string, string, error) {
	return func(string) (string, string, error) { return name, "secret of " + name, nil }
}

// pullOf resolves app:v1 of the server as containerd does for one pull, and returns the
// hosts of the pull.
func pullOf(t *testing.T, s *Sessions, registry string, options config.HostOptions) ([]docker.RegistryHost, error) {
	t.Helper()
	hosts, err := s.Hosts(t.Context(), registry, options)
	if err != nil {
		t.Fatal(err)
	}
	r := docker.NewResolver(docker.ResolverOptions{Hosts: func(string) ([]docker.RegistryHost, error) { return hosts, nil }})
	_, _, err = r.Resolve(t.Context(), registry+"/test/app:v1")
	if err == nil {
		settle(hosts)
	}
	return hosts, err
}

const imageTag = repository + "manifests/v1"

// image is the answer for the image's tag.
func image() hostile.Answer {
	return hostile.Content(ocispec.MediaTypeImageManifest, []byte("{}")).With("Docker-Content-Digest", digest.FromString("{}").String())
}

// tokenServer asks for the token of each user that its token service gave out, and counts
// by path and user what it was asked.
func tokenServer(t *testing.T) *hostile.Server {
	t.Helper()
	s := hostile.New(t)
	s.On("/token", issued("first"), issued("second"), issued("third"))
	s.On(imageTag, challenging(s.URL()+"/token", `,scope="repository:test/app:pull"`), image())
	return s
}

func TestNextPullMeetsNoChallenge(t *testing.T) {
	var c counters
	sessions := &Sessions{Observer: &c}
	s := tokenServer(t)
	asked := 0
	options := plain(func(string) (string, string, error) { asked++; return "a", "secret", nil })
	for n := range 3 {
		hosts, err := pullOf(t, sessions, s.Host(), options)
		if err != nil {
			t.Fatal(err)
		}
		if asked != n+1 {
			t.Errorf("pull %d: the client was asked for credentials %d times in all, want once a pull", n, asked)
		}
		if !remembersAny(hosts) {
			t.Error("the registry is not known after a pull")
		}
	}
	if got, want := s.Paths(), []string{imageTag, "/token", imageTag, imageTag, imageTag}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
	if c.connected.Load() != 1 || c.fetched.Load() != 1 || c.remembered.Load() != 2 || c.requested.Load() != 5 {
		t.Errorf("%d connections, %d tokens fetched, %d remembered, %d requests, want 1, 1, 2 and 5",
			c.connected.Load(), c.fetched.Load(), c.remembered.Load(), c.requested.Load())
	}
}

// A token serves the client whose credentials got it, and no other.
func TestTokensServeWhoGotThem(t *testing.T) {
	sessions := &Sessions{}
	s := tokenServer(t)
	for _, who := range []string{"a", "b", "", "a", "b", ""} {
		options := plain(user(who))
		if who == "" {
			options = plain(nil)
		}
		if _, err := pullOf(t, sessions, s.Host(), options); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"", "Bearer first", "Bearer second", "Bearer third", "Bearer first", "Bearer second", "Bearer third"}
	if got := authorizations(s, imageTag); !slices.Equal(got, want) {
		t.Errorf("authorized with %q, want %q", got, want)
	}
	denied := plain(func(string) (string, string, error) { return "", "", io.ErrClosedPipe })
	if _, err := pullOf(t, sessions, s.Host(), denied); err != nil {
		t.Errorf("%v, want that a client without an answer is not let in on another's token: %q", err, authorizations(s, imageTag))
	}
	if got := authorizations(s, imageTag); got[len(got)-1] != "" {
		t.Errorf("a client that could not give credentials was authorized with %q", got[len(got)-1])
	}
}

// What is remembered and no longer holds costs a pull a request, never the pull.
func TestWhatIsRememberedMayBeWrong(t *testing.T) {
	for name, now := range map[string]func(*hostile.Server){
		"the token was revoked": func(s *hostile.Server) {
			s.On(imageTag, challenging(s.URL()+"/token", `,error="invalid_token"`), image())
		},
		"the token was revoked, without a word": func(s *hostile.Server) {
			s.On(imageTag, challenging(s.URL()+"/token", ""), image())
		},
		"the token service moved": func(s *hostile.Server) {
			s.On("/token", hostile.Status(http.StatusGone))
			s.On("/token2", issued("moved"))
			s.On(imageTag, challenging(s.URL()+"/token2", `,error="invalid_token"`), image())
		},
		"no authorization is asked for": func(s *hostile.Server) { s.On(imageTag, image()) },
		"basic authorization is asked for": func(s *hostile.Server) {
			s.On(imageTag, hostile.Status(http.StatusUnauthorized).With("WWW-Authenticate", `Basic realm="r"`), image())
		},
	} {
		t.Run(name, func(t *testing.T) {
			sessions := &Sessions{}
			s := tokenServer(t)
			if _, err := pullOf(t, sessions, s.Host(), plain(user("a"))); err != nil {
				t.Fatal(err)
			}
			before := len(s.Requests())
			now(s)
			if _, err := pullOf(t, sessions, s.Host(), plain(user("a"))); err != nil {
				t.Errorf("the pull fails: %v", err)
			}
			if got := len(s.Requests()) - before; got > 4 {
				t.Errorf("%d requests, want at most what was remembered, the challenge, the token and the answer: %q", got, s.Paths()[before:])
			}
		})
	}
}

// A change of what configures a host is there at the next pull; nothing else ends a session.
func TestSessionEndsWithItsConfiguration(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(t *testing.T, dir, elsewhere string)
		ends   bool
	}{
		"nothing": {func(*testing.T, string, string) {}, false},
		"a file is touched": {func(t *testing.T, dir, _ string) {
			if err := os.Chtimes(filepath.Join(dir, "hosts.toml"), time.Time{}, time.Now()); err != nil {
				t.Fatal(err)
			}
		}, false},
		"hosts.toml":                  {func(t *testing.T, dir, _ string) { appendTo(t, filepath.Join(dir, "hosts.toml"), "\n") }, true},
		"a CA in another folder":      {func(t *testing.T, _, elsewhere string) { appendTo(t, elsewhere, "\n") }, true},
		"a certificate in the folder": {func(t *testing.T, dir, _ string) { appendTo(t, filepath.Join(dir, "x.key"), "new") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := hostile.NewTLS(t)
			s.On(imageTag, image())
			dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "ca.pem")
			appendTo(t, elsewhere, string(s.Certificate()))
			appendTo(t, filepath.Join(dir, "hosts.toml"), fmt.Sprintf("server = %q\nca = [%q]\n", s.URL(), elsewhere))
			var c counters
			sessions := &Sessions{Observer: &c}
			options := config.HostOptions{HostDir: func(string) (string, error) { return dir, nil }}
			for range 2 {
				if _, err := pullOf(t, sessions, s.Host(), options); err != nil {
					t.Fatal(err)
				}
				tc.change(t, dir, elsewhere)
			}
			want := int32(1)
			if tc.ends {
				want = 2
			}
			if got := c.connected.Load(); got != want {
				t.Errorf("%d connections, want %d", got, want)
			}
			if len(sessions.known) != 1 {
				t.Errorf("%d sessions are known, want the one of now", len(sessions.known))
			}
		})
	}
}

func appendTo(t *testing.T, name, text string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// A file that cannot be read, or parsed, is containerd's to report, at every pull.
func TestBrokenConfigurationIsReported(t *testing.T) {
	dir := t.TempDir()
	options := config.HostOptions{HostDir: func(string) (string, error) { return dir, nil }}
	appendTo(t, filepath.Join(dir, "hosts.toml"), `ca = "gone.pem"`)
	var sessions Sessions
	for range 2 {
		if _, err := sessions.Hosts(t.Context(), "registry.test", options); err == nil || !strings.Contains(err.Error(), "gone.pem") {
			t.Errorf("%v, want that the file is named", err)
		}
	}
}

func TestSessionsAreBounded(t *testing.T) {
	var sessions Sessions
	for n := range MaxSessions + 20 {
		if _, err := sessions.Hosts(t.Context(), fmt.Sprintf("registry-%d.test", n), config.HostOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if len(sessions.known) != MaxSessions || sessions.known[sessionKey{registry: "registry-0.test"}] != nil {
		t.Errorf("%d sessions, want %d without the oldest", len(sessions.known), MaxSessions)
	}
	for _, session := range sessions.known {
		session.used = time.Now().Add(-2 * sessionTime)
	}
	if _, err := sessions.Hosts(t.Context(), "last.test", config.HostOptions{}); err != nil || len(sessions.known) != 1 {
		t.Errorf("%d sessions, %v, want those that no pull uses gone", len(sessions.known), err)
	}
	var known tokens
	for n := range maxTokens + 20 {
		known.add(tokenKey{scopes: fmt.Sprint(n)}, &token{began: time.Unix(int64(n), 0), done: make(chan struct{})})
	}
	if len(known.known) != maxTokens || known.known[tokenKey{scopes: "0"}] != nil {
		t.Errorf("%d tokens, want %d without the oldest", len(known.known), maxTokens)
	}
}
