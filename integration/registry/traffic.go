package registry

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Requests returns what reached the front since the last Reset.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Count returns how many requests have the substring in "METHOD path".
func (r *Registry) Count(substring string) int {
	n := 0
	for _, q := range r.Requests() {
		if strings.Contains(q.Method+" "+q.Path, substring) {
			n++
		}
	}
	return n
}

// Connections returns how many connections the front accepted since the last Reset.
func (r *Registry) Connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.connections
}

// Open returns how many connections are open now.
func (r *Registry) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// Reset forgets the requests and connections.
func (r *Registry) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests, r.connections = nil, 0
}

func (r *Registry) connected(conn net.Conn, state http.ConnState) {
	if tcp, ok := conn.(*net.TCPConn); ok && state == http.StateNew && r.o.writeBuffer > 0 {
		_ = tcp.SetWriteBuffer(r.o.writeBuffer) // a test that needs it counts what was written
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch state {
	case http.StateNew:
		r.connections++
		r.open++
	case http.StateClosed, http.StateHijacked:
		r.open--
	}
}

func (r *Registry) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		// Registries write into what they are given.
		made := Request{
			Method: q.Method, Path: q.URL.RequestURI(), Header: q.Header.Clone(),
			Start: time.Now(), Remote: q.RemoteAddr, Proto: q.Proto,
		}
		if r.o.delay > 0 {
			time.Sleep(r.o.delay)
		}
		c := &codeWriter{ResponseWriter: w, code: http.StatusOK}
		defer func() {
			made.Code, made.Bytes, made.End = c.code, c.bytes, time.Now()
			r.mu.Lock()
			defer r.mu.Unlock()
			r.requests = append(r.requests, made)
		}()
		next.ServeHTTP(c, q)
	})
}

type codeWriter struct {
	http.ResponseWriter
	code  int
	bytes int64
}

func (w *codeWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *codeWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap serves http.ResponseController.
func (w *codeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
