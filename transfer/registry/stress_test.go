package registry

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
)

// Many pulls of many clients, some cancelled, while tokens are revoked, each get the token that
// is theirs.
func TestManyPullsAtOnce(t *testing.T) {
	f := newFickle(t)
	var generation, wrong atomic.Int64
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			user, _, _ := r.BasicAuth()
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			time.Sleep(rand.N(5 * time.Millisecond))
			issue(w, fmt.Sprintf("%s.%s.%d", user, strings.Join(r.URL.Query()["scope"], "+"), generation.Load()))
			return
		}
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		parts := strings.Split(token, ".")
		if ok && (len(parts) != 3 || parts[0] != r.Header.Get("X-User") || !strings.Contains(parts[1], "repository:"+strings.Split(r.URL.Path, "/")[2]+":")) {
			wrong.Add(1)
		}
		if !ok || parts[2] != fmt.Sprint(generation.Load()) && rand.N(2) == 0 {
			f.challenge(w, "/token", "")
			return
		}
		giveImage(w)
	})
	sessions := &Sessions{}
	var wg sync.WaitGroup
	stop := time.Now().Add(2 * time.Second)
	var pulls, failed atomic.Int64
	for n := range 12 {
		wg.Go(func() {
			for time.Now().Before(stop) {
				name := fmt.Sprintf("u%d", n%3)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				cancelled := rand.N(4) == 0
				if cancelled {
					time.AfterFunc(rand.N(10*time.Millisecond), cancel)
				}
				hosts, err := sessions.Hosts(ctx, f.host(), plain(user(name)))
				if err != nil {
					t.Error(err)
				}
				repo := fmt.Sprintf("r%d", rand.N(3))
				header := http.Header{"X-User": {name}}
				r := docker.NewResolver(docker.ResolverOptions{Headers: header, Hosts: func(string) ([]docker.RegistryHost, error) { return hosts, nil }})
				spec, _ := reference.Parse(f.host() + "/" + repo + ":v1")
				ours := New(spec, hosts, header, Limits{})
				var beside sync.WaitGroup
				beside.Go(func() { _, _ = ours.Get(ctx, ours.hosts[0], ours.URL(ours.hosts[0], "manifests", "v1"), "*/*") })
				_, _, err = r.Resolve(ctx, spec.String())
				beside.Wait()
				cancel()
				pulls.Add(1)
				if err != nil && !cancelled && !strings.Contains(err.Error(), "401") { // five in a row may be unlucky
					failed.Add(1)
					t.Errorf("a pull fails: %v", err)
				}
				settle(hosts)
				if rand.N(50) == 0 {
					generation.Add(1)
				}
				if rand.N(100) == 0 {
					sessions.Close()
				}
			}
		})
	}
	wg.Wait()
	if wrong.Load() != 0 {
		t.Errorf("%d requests had the token of another client or repository", wrong.Load())
	}
	t.Logf("%d pulls, %d tokens known", pulls.Load(), len(sessions.tokens.known))
}
