package hostile

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"
)

func get(t *testing.T, s *Server, path string) (*http.Response, []byte, error) {
	t.Helper()
	client := http.Client{Transport: s.Transport(), Timeout: 5 * time.Second}
	resp, err := client.Get(s.URL() + path)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

func TestScriptGivesAnswersInOrderAndRepeatsTheLast(t *testing.T) {
	s := New(t)
	s.On("/a", Status(http.StatusTeapot), Content("text/plain", []byte("hello")).With("X-Test", "1"))
	want := []int{http.StatusTeapot, http.StatusOK, http.StatusOK, http.StatusNotFound}
	for i, path := range []string{"/a", "/a?page=2", "/a", "/b"} {
		resp, body, err := get(t, s, path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want[i] {
			t.Errorf("request %d: %d, want %d", i, resp.StatusCode, want[i])
		}
		if resp.StatusCode == http.StatusOK && (string(body) != "hello" || resp.Header.Get("X-Test") != "1") {
			t.Errorf("request %d: body %q, header %q", i, body, resp.Header.Get("X-Test"))
		}
	}
	if got, want := s.Paths(), []string{"/a", "/a", "/a", "/b"}; !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	if got := s.Requests()[1].Query; got != "page=2" {
		t.Errorf("recorded query %q, want page=2", got)
	}
}

func TestServerListensOnLoopbackOnly(t *testing.T) {
	for _, s := range []*Server{New(t), NewTLS(t)} {
		host, _, err := net.SplitHostPort(s.Host())
		if err != nil || !net.ParseIP(host).IsLoopback() {
			t.Errorf("listens on %q (%v), want a loopback address", s.Host(), err)
		}
		if _, _, err := get(t, s, "/"); err != nil {
			t.Errorf("its own transport does not trust %s: %v", s.URL(), err)
		}
	}
}

func TestAnswersThatBreakHTTP(t *testing.T) {
	s := New(t)
	s.On("/drop", Answer{Drop: true})
	s.On("/short", Answer{Body: []byte("abc"), Announce: 10})
	s.On("/unannounced", Answer{Body: []byte("abc"), Announce: -1})
	s.On("/drip", Answer{Body: []byte("abc"), Drip: 20 * time.Millisecond})

	if _, _, err := get(t, s, "/drop"); !errors.Is(err, io.EOF) {
		t.Errorf("dropped connection: %v, want EOF", err)
	}
	if resp, body, err := get(t, s, "/short"); !errors.Is(err, io.ErrUnexpectedEOF) || resp.ContentLength != 10 || string(body) != "abc" {
		t.Errorf("short body: %q, %v, want abc of 10 and an unexpected EOF", body, err)
	}
	if resp, body, err := get(t, s, "/unannounced"); err != nil || resp.ContentLength != -1 || string(body) != "abc" {
		t.Errorf("unannounced length: %q, %v, want abc of unknown length", body, err)
	}
	start := time.Now()
	if _, body, err := get(t, s, "/drip"); err != nil || string(body) != "abc" || time.Since(start) < 40*time.Millisecond {
		t.Errorf("drip: %q, %v, after %s, want abc after 40ms at least", body, err, time.Since(start))
	}
}

func TestAnswersThatNeverEndEndWithTheirClient(t *testing.T) {
	s := New(t)
	s.On("/hang", Answer{Hang: true})
	s.On("/stall", Answer{Body: []byte("abc"), Announce: -1, Stall: true})
	s.On("/endless", Answer{Body: make([]byte, 1<<10), Endless: true})
	for _, path := range []string{"/hang", "/stall", "/endless"} {
		client := http.Client{Transport: s.Transport(), Timeout: 100 * time.Millisecond}
		resp, err := client.Get(s.URL() + path)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: %v, want a time-out", path, err)
		}
	}
	// The server's end waits for its answers: the test hangs if they go on.
}

func TestRequiredAuthorization(t *testing.T) {
	s := New(t)
	s.Require(`Basic realm="r"`, "Basic b2s=", "/v2/token")
	s.On("/v2/a", Status(http.StatusTeapot))
	ask := func(path, authorization string) *http.Response {
		req, err := http.NewRequest(http.MethodGet, s.URL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", authorization)
		resp, err := (&http.Client{Transport: s.Transport()}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	if resp := ask("/v2/a", "Basic bm8="); resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") != `Basic realm="r"` {
		t.Errorf("%d with %v, want 401 and the challenge", resp.StatusCode, resp.Header)
	}
	if resp := ask("/v2/a", "Basic b2s="); resp.StatusCode != http.StatusTeapot {
		t.Errorf("%d, want what is scripted", resp.StatusCode)
	}
	if resp := ask("/v2/token", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("%d, want 404: a token service asks for nothing", resp.StatusCode)
	}
	var codes []int
	for _, r := range s.Requests() {
		codes = append(codes, r.Code)
	}
	if want := []int{401, 418, 404}; !slices.Equal(codes, want) {
		t.Errorf("recorded %v, want %v", codes, want)
	}
}
