package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name, value string
		want        time.Duration
	}{
		{"none", "", 0},
		{"seconds", "7", 7 * time.Second},
		{"spaces around seconds", " 7 ", 7 * time.Second},
		{"zero", "0", 0},
		{"negative", "-7", 0},
		{"a fraction", "1.5", 0},
		{"garbage", "soon", 0},
		{"most seconds of 31 bits", "2147483647", 2147483647 * time.Second},
		{"date", now.Add(90 * time.Second).Format(http.TimeFormat), 90 * time.Second},
		{"date of RFC 850", now.Add(90 * time.Second).Format("Monday, 02-Jan-06 15:04:05 GMT"), 90 * time.Second},
		{"date in the past", now.Add(-time.Hour).Format(http.TimeFormat), 0},
		{"date without a day", "01 Aug 2026", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := retryAfter(tc.value, now); got != tc.want {
				t.Errorf("%q: %s, want %s", tc.value, got, tc.want)
			}
		})
	}
	// Farther away than a time.Duration can say: no overflow into the past.
	if got := retryAfter("Fri, 31 Dec 9999 23:59:59 GMT", now); got < 24*time.Hour {
		t.Errorf("the year 9999: %s, want a long time", got)
	}
}

func TestWaitStaysWithinBounds(t *testing.T) {
	r := alone(t, hostile.New(t), Limits{Backoff: 100 * time.Millisecond, RetryAfter: 10 * time.Second})
	after := func(value string) *http.Response {
		return &http.Response{Header: http.Header{"Retry-After": {value}}}
	}
	for _, tc := range []struct {
		name        string
		attempt     int
		resp        *http.Response
		least, most time.Duration
	}{
		{"first", 1, nil, 50 * time.Millisecond, 100 * time.Millisecond},
		{"second is doubled", 2, nil, 100 * time.Millisecond, 200 * time.Millisecond},
		{"fourth", 4, nil, 400 * time.Millisecond, 800 * time.Millisecond},
		{"what the server asks for, and jitter", 1, after("2"), 2 * time.Second, 2200 * time.Millisecond},
		{"a day is capped", 1, after("86400"), 9 * time.Second, 10 * time.Second},
		{"more than can be counted is capped", 1, after("99999999999999999999"), 9 * time.Second, 10 * time.Second},
		{"the hundredth", 100, nil, 51 * time.Second, 103 * time.Second},
		{"a server without a wish", 1, after(""), 50 * time.Millisecond, 100 * time.Millisecond},
		{"a server that wishes the past", 1, after("-5"), 50 * time.Millisecond, 100 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			seen := map[time.Duration]bool{}
			for range 200 {
				got := r.wait(tc.attempt, tc.resp)
				if got < tc.least || got > tc.most {
					t.Fatalf("%s, want %s to %s", got, tc.least, tc.most)
				}
				seen[got] = true
			}
			if len(seen) < 2 {
				t.Error("no jitter: 200 waits of the same length")
			}
		})
	}
}

func TestAttempts(t *testing.T) {
	for _, tc := range []struct {
		name     string
		answers  []hostile.Answer
		code     int // 0 is an error
		requests int
	}{
		{"200", []hostile.Answer{{}}, 200, 1},
		{"404 stays", []hostile.Answer{hostile.Status(404)}, 404, 1},
		{"403 stays", []hostile.Answer{hostile.Status(403)}, 403, 1},
		{"501 stays", []hostile.Answer{hostile.Status(501)}, 501, 1},
		{"408 passes", []hostile.Answer{hostile.Status(408), {}}, 200, 2},
		{"429 passes", []hostile.Answer{hostile.Status(429), {}}, 200, 2},
		{"500 passes", []hostile.Answer{hostile.Status(500), hostile.Status(502), {}}, 200, 3},
		{"503 for ever", []hostile.Answer{hostile.Status(503)}, 503, 3},
		{"a 404 after a 504 counts", []hostile.Answer{hostile.Status(504), hostile.Status(404)}, 404, 2},
		{"401 without an authorizer stays", []hostile.Answer{hostile.Status(401)}, 401, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hostile.New(t)
			s.On("/a", tc.answers...)
			a, err := fetch(t, alone(t, s, quick), "/a")
			if err != nil {
				t.Fatal(err)
			}
			if a.Code != tc.code {
				t.Errorf("code %d, want %d", a.Code, tc.code)
			}
			if got := len(s.Requests()); got != tc.requests {
				t.Errorf("%d requests, want %d", got, tc.requests)
			}
		})
	}
}

func TestBrokenConnectionIsTriedAgain(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", hostile.Answer{Drop: true}, hostile.Answer{})
	if a, err := fetch(t, alone(t, s, quick), "/a"); err != nil || a.Code != http.StatusOK {
		t.Errorf("%v, want the second attempt's answer", err)
	}
	if got := len(s.Requests()); got != 2 {
		t.Errorf("%d requests, want 2", got)
	}

	s = hostile.New(t)
	s.On("/a", hostile.Answer{Drop: true})
	if _, err := fetch(t, alone(t, s, quick), "/a"); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want EOF", err)
	}
	if got := len(s.Requests()); got != quick.Attempts {
		t.Errorf("%d requests, want %d", got, quick.Attempts)
	}
}

func TestRetryAfterIsWaitedForAndCapped(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", hostile.Status(http.StatusTooManyRequests).With("Retry-After", "3600"), hostile.Answer{})
	limits := quick
	limits.RetryAfter = short
	a, err := fetch(t, alone(t, s, limits), "/a")
	if err != nil || a.Code != http.StatusOK {
		t.Fatalf("%v, want the second attempt's answer", err)
	}
	requests := s.Requests()
	if got := requests[1].Time.Sub(requests[0].Time); got < short*9/10 || got > 20*short {
		t.Errorf("asked again after %s, want the cap of %s", got, short)
	}
}

func TestCallerEndsTheWaitForTheNextAttempt(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", hostile.Status(http.StatusServiceUnavailable).With("Retry-After", "60"))
	limits := quick
	limits.RetryAfter = time.Minute
	r := alone(t, s, limits)
	reason := errors.New("the pull is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(reason) })
	h := r.Hosts(pull)[0]
	start := time.Now()
	_, err := r.Get(ctx, h, &url.URL{Scheme: h.Scheme, Host: h.Host, Path: "/a"}, "*/*")
	if !errors.Is(err, reason) {
		t.Errorf("%v, want the caller's reason", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("returned after %s", took)
	}
	if h.Down() != nil {
		t.Errorf("the caller's end marked the host down: %v", h.Down())
	}
}

func TestHeadersThatDoNotComeEndTheRequest(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", hostile.Answer{Hang: true})
	limits := quick
	limits.Request = short
	r := alone(t, s, limits)
	start := time.Now()
	_, err := fetch(t, r, "/a")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no headers within 200ms") {
		t.Errorf("%v, want that no headers came in time", err)
	}
	if took := time.Since(start); took < short || took > 20*short {
		t.Errorf("returned after %s, want about %s", took, short)
	}
	// The pull waits for a host that is slow: once is enough.
	if _, err := fetch(t, r, "/b"); err == nil || r.Hosts(pull)[0].Down() == nil {
		t.Errorf("%v, want a host that is down", err)
	}
	if got := len(s.Requests()); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"https://r.test/v2/a/manifests/x":                     "https://r.test/v2/a/manifests/x",
		"https://r.test/v2/a?ns=docker.io":                    "https://r.test/v2/a?ns=docker.io",
		"https://s3.test/b?X-Amz-Signature=secret":            "https://s3.test/b",
		"https://s3.test/b?X-Amz-Signature=secret&ns=ghcr.io": "https://s3.test/b?ns=ghcr.io",
		"https://user:secret@r.test/v2/":                      "https://user:xxxxx@r.test/v2/",
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := redact(u); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
		if u.String() != in {
			t.Errorf("%s was changed to %s", in, u)
		}
	}
}
