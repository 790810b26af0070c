package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// TestBodyOfAnErrorThatNeverComes has errors that announce a body and then say
// nothing more. What they have to tell is in the headers.
func TestBodyOfAnErrorThatNeverComes(t *testing.T) {
	operations := map[string]func(context.Context, *Repository) (code int, err error){
		"Get": func(ctx context.Context, r *Repository) (int, error) {
			h := r.Hosts(pull)[0]
			a, err := r.Get(ctx, h, r.URL(h, "manifests", descriptor(blobText).Digest.String()), "*/*")
			if err != nil {
				return 0, err
			}
			return a.Code, nil
		},
		"Manifest": func(ctx context.Context, r *Repository) (int, error) {
			_, err := r.Manifest(ctx, descriptor(blobText))
			return 0, err
		},
		"Blob": func(ctx context.Context, r *Repository) (int, error) {
			return 0, r.Blob(ctx, layer(), func(io.Reader) error { return errors.New("used the body of an error") })
		},
	}
	for code, is := range map[int]func(error) bool{
		401: errdefs.IsUnauthorized,
		404: errdefs.IsNotFound,
		503: errdefs.IsUnavailable,
	} {
		for name, operation := range operations {
			t.Run(fmt.Sprintf("%s of a %d", name, code), func(t *testing.T) {
				t.Parallel() // each waits a second
				s := hostile.New(t)
				silent := hostile.Answer{Code: code, Announce: 1000, Stall: true}
				s.On("/v2/test/app/manifests/"+layer().Digest.String(), silent)
				s.On("/v2/test/app/blobs/"+layer().Digest.String(), silent)
				limits := quick
				limits.Attempts = 1 // a 503 costs this time in each
				// Where nothing else ends the wait, this does.
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				got, err := operation(ctx, alone(t, s, limits))
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("returned after %s, want about a second", took)
				}
				if name == "Get" && (err != nil || got != code) {
					t.Errorf("code %d, %v, want %d", got, err, code)
				}
				if name != "Get" && !is(err) {
					t.Errorf("%v, want the error of a %d", err, code)
				}
				if got := len(s.Requests()); got != 1 {
					t.Errorf("%d requests, want 1", got)
				}
			})
		}
	}
}

func TestBodyOfAPassingErrorThatNeverComesIsNoEnd(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", hostile.Answer{Code: 503, Announce: 1000, Stall: true}, hostile.Answer{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r := alone(t, s, quick)
	h := r.Hosts(pull)[0]
	u := r.URL(h)
	u.Path = "/a"
	if a, err := r.Get(ctx, h, u, "*/*"); err != nil || a.Code != 200 {
		t.Errorf("%v, want the second attempt's answer", err)
	}
	if h.Down() != nil {
		t.Errorf("a host that answers is down: %v", h.Down())
	}
}

// TestEveryRequestIsAnAttempt has connections that break half way through a body,
// alone and among other failures: Limits.Attempts counts them all together.
func TestEveryRequestIsAnAttempt(t *testing.T) {
	body := []byte(blobText)
	breaks := hostile.Answer{Body: body[:4], Announce: int64(len(body))}
	ill := hostile.Status(503)
	honest := hostile.Answer{Body: body}
	for _, tc := range []struct {
		name     string
		answers  []hostile.Answer
		ok       bool
		requests int
	}{
		{"breaks off each time", []hostile.Answer{breaks}, false, 3},
		{"ill twice, and breaks off", []hostile.Answer{ill, ill, breaks, ill, ill, breaks, ill, ill, breaks}, false, 3},
		{"breaks off, and ill ever after", []hostile.Answer{breaks, ill}, false, 3},
		{"ill, breaks off, honest", []hostile.Answer{ill, breaks, honest}, true, 3},
		{"honest one too late", []hostile.Answer{breaks, ill, breaks, honest}, false, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, operation := range map[string]func(*Repository) error{
				"blob":     func(r *Repository) error { _, _, err := blob(t, r, layer()); return err },
				"manifest": func(r *Repository) error { _, err := r.Manifest(t.Context(), descriptor(blobText)); return err },
			} {
				s := hostile.New(t)
				s.On("/v2/test/app/blobs/"+layer().Digest.String(), tc.answers...)
				s.On("/v2/test/app/manifests/"+layer().Digest.String(), tc.answers...)
				if err := operation(alone(t, s, quick)); tc.ok != (err == nil) {
					t.Errorf("%s: %v", name, err)
				}
				if got := len(s.Requests()); got != tc.requests {
					t.Errorf("%s: %d requests, want %d", name, got, tc.requests)
				}
			}
		})
	}
}
