// Package hostile is a registry that answers as a test tells it to: late, in
// part, without end, with lies. It does what real registries never do
// on demand.
//
// A [Server] listens on a free port of the loopback interface and nowhere else.
// What it answers is scripted path by path with [Server.On]; what it was asked is
// kept, so that a test can tell how often and with which headers. A path without
// a script answers 404.
package hostile

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// Server is a scripted registry. It is safe for concurrent use.
type Server struct {
	server *httptest.Server
	closed chan struct{} // ends the answers that have no end of their own

	mu       sync.Mutex
	script   map[string][]Answer
	requests []Request
	required requirement
}

// requirement is what requests below /v2/ must have, but for those to the token service.
type requirement struct{ challenge, authorization, service string }

// Request is one that the server received.
type Request struct {
	Time   time.Time
	Method string
	Path   string
	Query  string
	Header http.Header
	Body   []byte // its first mebibyte
	Code   int    // that it was answered with, 0 for none
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server { return start(t, (*httptest.Server).Start) }

// NewTLS starts a server that speaks TLS, with a certificate that only the
// clients of [Server.Transport] trust.
func NewTLS(t testing.TB) *Server { return start(t, (*httptest.Server).StartTLS) }

func start(t testing.TB, listen func(*httptest.Server)) *Server {
	t.Helper()
	s := &Server{closed: make(chan struct{}), script: map[string][]Answer{}}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	listen(s.server)
	t.Cleanup(func() {
		close(s.closed)
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

// On scripts what a path answers, whatever the query: the first request gets the
// first answer, and so on; the last is given again for ever. It replaces what the
// path answered until now.
func (s *Server) On(path string, answers ...Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script[path] = answers
}

// Require has paths below /v2/ answer 401, with the challenge, to requests that do not have
// the authorization, all but the token service's. What they are scripted to answer waits for
// one that has.
func (s *Server) Require(challenge, authorization, service string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.required = requirement{challenge, authorization, service}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20)) // what came before a client left
	s.mu.Lock()
	answer := s.next(r)
	s.requests = append(s.requests, Request{
		Time:   time.Now(),
		Method: r.Method,
		Path:   r.URL.Path,
		Query:  r.URL.RawQuery,
		Header: r.Header.Clone(),
		Body:   body,
		Code:   answer.code(),
	})
	s.mu.Unlock()
	answer.write(w, r, s.closed)
}

// next takes the answer to the request out of the script.
func (s *Server) next(r *http.Request) Answer {
	if q := s.required; q.challenge != "" && strings.HasPrefix(r.URL.Path, "/v2/") &&
		r.URL.Path != q.service && r.Header.Get("Authorization") != q.authorization {
		return Status(http.StatusUnauthorized).With("WWW-Authenticate", q.challenge)
	}
	answers := s.script[r.URL.Path]
	switch len(answers) {
	case 0:
		return Status(http.StatusNotFound)
	case 1:
		return answers[0]
	}
	s.script[r.URL.Path] = answers[1:]
	return answers[0]
}

// Requests returns what was asked until now, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Paths returns the paths asked for until now, in order.
func (s *Server) Paths() []string {
	var paths []string
	for _, r := range s.Requests() {
		paths = append(paths, r.Path)
	}
	return paths
}

// URL returns the server's address, without a path.
func (s *Server) URL() string { return s.server.URL }

// Host returns the server's host and port.
func (s *Server) Host() string {
	_, host, _ := strings.Cut(s.server.URL, "://")
	return host
}

// Certificate returns the certificate of a server that speaks TLS, in PEM.
func (s *Server) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw})
}

// Transport returns a new transport that trusts the server, with connections of
// its own.
func (s *Server) Transport() *http.Transport {
	t := &http.Transport{}
	if trusted, ok := s.server.Client().Transport.(*http.Transport); ok && trusted.TLSClientConfig != nil {
		t.TLSClientConfig = trusted.TLSClientConfig.Clone()
	}
	return t
}

// RegistryHost returns the server as hosts.toml would configure it, without
// credentials.
func (s *Server) RegistryHost(capabilities docker.HostCapabilities) docker.RegistryHost {
	scheme, host, _ := strings.Cut(s.server.URL, "://")
	return docker.RegistryHost{
		Client:       &http.Client{Transport: s.Transport()},
		Host:         host,
		Scheme:       scheme,
		Path:         "/v2",
		Capabilities: capabilities,
	}
}
