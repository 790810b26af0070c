package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// observed tells when the authorizer that it wraps is done. Until then another
// call reads what this one writes: containerd's own authorizer, which keeps what
// it got, is not free of that race.
type observed struct {
	docker.Authorizer
	done chan error
}

func (o observed) Authorize(ctx context.Context, req *http.Request) error {
	err := o.Authorizer.Authorize(ctx, req)
	if req.Header.Get("Authorization") != "" || err != nil {
		select {
		case o.done <- err:
		default: // only the first is waited for
		}
	}
	return err
}

// slowTokens is a token service that answers once it is released.
func slowTokens(t *testing.T) (url string, release func(), asked *atomic.Int32) {
	t.Helper()
	released := make(chan struct{})
	release = sync.OnceFunc(func() { close(released) })
	asked = new(atomic.Int32)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // a client that has left is no concern here
		select {
		case <-released:
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"token":"late","access_token":"late","expires_in":3600}`)
	}))
	t.Cleanup(func() {
		release()
		service.Close()
	})
	return service.URL, release, asked
}

// TestTokenThatIsLateIsNotLost has a referrer that gives up on its token. The
// image's own requests share the authorizer, which would keep that failure for
// good.
func TestTokenThatIsLateIsNotLost(t *testing.T) {
	realm, release, asked := slowTokens(t)
	s := hostile.New(t)
	s.On("/a", challenge(realm, ""), hostile.Answer{})
	host := guarded(s)
	shared := host.Authorizer
	watched := observed{shared, make(chan error, 1)}
	host.Authorizer = watched
	limits := quick
	limits.Request = time.Second // time for the registry to answer
	r := newRepository(t, s.Host(), limits, host)

	start := time.Now()
	_, err := fetch(t, r, "/a")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "authorize at "+s.Host()) {
		t.Errorf("%v, want that the token did not come in time", err)
	}
	if took := time.Since(start); took < limits.Request || took > 10*limits.Request {
		t.Errorf("returned after %s, want about %s", took, limits.Request)
	}
	if down := r.Hosts(pull)[0].Down(); down != nil {
		t.Errorf("the registry answered, and is down: %v", down)
	}

	release()
	select {
	case err := <-watched.done:
		if err != nil {
			t.Errorf("the authorizer keeps %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the token did not come")
	}
	ctx, err := docker.ContextWithRepositoryScope(t.Context(), r.spec, false)
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodGet, s.URL()+"/a", nil)
	if err := shared.Authorize(ctx, req); err != nil || req.Header.Get("Authorization") != "Bearer late" {
		t.Errorf("Authorization %q, %v, want the token that came late", req.Header.Get("Authorization"), err)
	}
	if a, err := fetch(t, r, "/a"); err != nil || a.Code != http.StatusOK {
		t.Errorf("%v, want the answer now that there is a token", err)
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("the token service was asked %d times, want once", got)
	}
}

// TestCallerThatLeavesDoesNotLoseTheToken has a pull that ends while its token is
// on the way; another may share the authorizer.
func TestCallerThatLeavesDoesNotLoseTheToken(t *testing.T) {
	realm, release, _ := slowTokens(t)
	s := hostile.New(t)
	s.On("/a", challenge(realm, ""), hostile.Answer{})
	host := guarded(s)
	watched := observed{host.Authorizer, make(chan error, 1)}
	host.Authorizer = watched
	r := newRepository(t, s.Host(), quick, host)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	h := r.Hosts(pull)[0]
	u := r.URL(h)
	u.Path = "/a"
	if _, err := r.Get(ctx, h, u, "*/*"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the caller's end", err)
	}
	release()
	select {
	case err := <-watched.done:
		if err != nil {
			t.Errorf("the authorizer keeps %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the token did not come")
	}
	if h.Down() != nil {
		t.Errorf("the caller's end marked the host down: %v", h.Down())
	}
}
