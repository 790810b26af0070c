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

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

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

// A referrer that gives up on its token, or whose pull ends, leaves the token to those who
// still wait, and to whoever comes next.
func TestTokenThatIsLateIsNotLost(t *testing.T) {
	realm, release, asked := slowTokens(t)
	s := hostile.New(t)
	s.On("/a", challenging(realm, ""), hostile.Answer{})
	limits := quick
	limits.Request = time.Second // time for the registry to answer
	r := newRepository(t, s.Host(), limits, guarded(s))

	start := time.Now()
	_, err := fetch(t, r, "/a")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "authorize at "+s.Host()) {
		t.Errorf("%v, want that the token did not come in time", err)
	}
	if took := time.Since(start); took < limits.Request || took > 10*limits.Request {
		t.Errorf("returned after %s, want about %s", took, limits.Request)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	h := r.Hosts(pull)[0]
	if _, err := r.Get(ctx, h, r.URL(h), "*/*"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the caller's end", err)
	}
	if h.Down() != nil {
		t.Errorf("the registry answered, and is down: %v", h.Down())
	}
	release()
	if a, err := fetch(t, r, "/a"); err != nil || a.Code != http.StatusOK {
		t.Errorf("%v, want the answer now that there is a token", err)
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("the token service was asked %d times, want once", got)
	}
}

// A host whose token service hangs delays no other, though they share an authorizer.
func TestTokensOfOneHostDelayNoOther(t *testing.T) {
	realm, _, _ := slowTokens(t)
	mirror, s := hostile.New(t), hostile.New(t)
	mirror.On("/a", challenging(realm, ""))
	s.On("/token", issued("quick"))
	s.On("/a", challenging(s.URL()+"/token", ""), hostile.Answer{})
	first := guarded(mirror)
	second := s.RegistryHost(pullResolve)
	second.Authorizer = first.Authorizer
	limits := quick
	limits.Request = time.Second
	r := newRepository(t, "registry.test", limits, first, second)
	ask := func(h *Host) error {
		u := r.URL(h)
		u.Path = "/a"
		_, err := r.Get(t.Context(), h, u, "*/*")
		return err
	}
	waits := make(chan error, 1)
	go func() { waits <- ask(r.hosts[0]) }()
	for polls := 0; len(mirror.Requests()) == 0; polls++ {
		if polls == 10_000 {
			t.Fatal("the first host was not asked")
		}
		time.Sleep(time.Millisecond)
	}
	if err := ask(r.hosts[1]); err != nil {
		t.Errorf("at the other host: %v", err)
	}
	select {
	case err := <-waits:
		t.Errorf("the first host did not wait for its token: %v", err)
	default:
	}
	if err := <-waits; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want that the token did not come in time", err)
	}
}

func TestTokenServiceIsReadToALimit(t *testing.T) {
	s := hostile.New(t)
	long := `{"token":"` + strings.Repeat("x", maxTokenAnswer) + `"}`
	for name, answer := range map[string]hostile.Answer{
		"long":    hostile.Content("application/json", []byte(long)),
		"endless": {Header: map[string]string{"Content-Type": "application/json"}, Body: []byte(" "), Endless: true},
	} {
		s.On("/token", answer)
		s.On("/a", challenging(s.URL()+"/token", ""))
		if _, err := fetch(t, newRepository(t, s.Host(), quick, guarded(s)), "/a"); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
	var known tokens
	long = strings.Repeat("x", maxToken+1)
	for range 2 {
		token, err := known.get(t.Context(), tokenKey{}, time.Time{}, time.Now(), func(context.Context) (string, time.Duration, error) { return long, time.Hour, nil })
		if err != nil || token.value != long {
			t.Errorf("%v, want a long token to serve once", err)
		}
	}
	known.mu.Lock()
	defer known.mu.Unlock()
	if len(known.known) != 0 {
		t.Error("a long token is remembered")
	}
}
