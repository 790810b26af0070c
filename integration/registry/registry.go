// Package registry starts real registries for tests and demonstrations, on
// loopback, each behind a front that counts requests and may ask for tokens,
// speak TLS, answer late or fail.
package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory" // distribution's storage here
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/sirupsen/logrus"
)

// Kind is a registry program.
type Kind string

// The registries.
const (
	// Olareg has the referrers API, with pages.
	Olareg Kind = "olareg"
	// Distribution has none: listings live under fallback tags.
	Distribution Kind = "distribution"
	// GoContainerRegistry has the API, and lists wrong artifact types.
	GoContainerRegistry Kind = "go-containerregistry"
)

// Kinds are all of them.
var Kinds = []Kind{Olareg, Distribution, GoContainerRegistry}

// Request is one request that reached the front.
type Request struct {
	Method string
	Path   string // with the query
	Code   int
	Header http.Header
	// Start and End are when the front got the request and when its answer was
	// written; Bytes is how long the answer's body was.
	Start, End time.Time
	Bytes      int64
	// Remote is the client's end of the connection, Proto what it speaks on it,
	// "HTTP/1.1" or "HTTP/2.0".
	Remote, Proto string
}

func (r Request) String() string { return fmt.Sprintf("%s %s %d", r.Method, r.Path, r.Code) }

// Registry is a running registry.
type Registry struct {
	// Host is where clients find it, "127.0.0.1:<port>".
	Host string
	// Backend is the address of the same registry without its front, for
	// filling it: "http://127.0.0.1:<port>".
	Backend string

	front, back *httptest.Server
	closers     []func() error
	o           options

	mu          sync.Mutex
	requests    []Request
	connections int
	open        int
	fault       Fault
	tokens      map[string]bool
}

// Fault answers a request in the registry's place and returns true, or leaves it
// to the registry.
type Fault func(w http.ResponseWriter, r *http.Request) bool

type options struct {
	tls, http2     bool
	user, password string
	token          bool
	basic          bool
	clientCert     bool
	prefix         string
	delay          time.Duration
	pageSize       int64
	writeBuffer    int
}

// Option configures Start.
type Option func(*options)

// WithTLS makes the front speak HTTPS, with the certificate of httptest.
func WithTLS() Option { return func(o *options) { o.tls = true } }

// WithHTTP2 makes the front offer HTTP/2 beside HTTP/1.1, as public registries do
// (RFC 7301). It needs WithTLS.
func WithHTTP2() Option { return func(o *options) { o.http2 = true } }

// WithClientCertificate makes the front demand a certificate of its clients, any.
// It needs WithTLS.
func WithClientCertificate() Option { return func(o *options) { o.clientCert = true } }

// WithPrefix puts the registry's API below a path.
func WithPrefix(path string) Option { return func(o *options) { o.prefix = path } }

// WithToken makes the front ask for bearer tokens, which it gives out itself; to
// anyone where user is empty.
func WithToken(user, password string) Option {
	return func(o *options) { o.token, o.user, o.password = true, user, password }
}

// WithBasic makes the front ask for a user and password.
func WithBasic(user, password string) Option {
	return func(o *options) { o.basic, o.user, o.password = true, user, password }
}

// WithDelay makes every answer of the front late.
func WithDelay(d time.Duration) Option { return func(o *options) { o.delay = d } }

// WithPageSize bounds one page of olareg's listings, in bytes.
func WithPageSize(bytes int64) Option { return func(o *options) { o.pageSize = bytes } }

// WithWriteBuffer bounds what the kernel takes of an answer that nobody reads, in bytes of each connection.
func WithWriteBuffer(bytes int) Option { return func(o *options) { o.writeBuffer = bytes } }

// Start starts a registry that keeps its content in memory.
func Start(kind Kind, opts ...Option) (*Registry, error) {
	r := &Registry{tokens: map[string]bool{}}
	for _, opt := range opts {
		opt(&r.o)
	}
	var handler http.Handler
	switch kind {
	case Olareg:
		deletes := true
		s := olareg.New(config.Config{
			Storage: config.ConfigStorage{StoreType: config.StoreMem},
			API:     config.ConfigAPI{DeleteEnabled: &deletes, Referrer: config.ConfigAPIReferrer{Limit: r.o.pageSize}},
			Log:     slog.New(slog.DiscardHandler),
		})
		r.closers = append(r.closers, s.Close)
		handler = s
	case Distribution:
		logrus.SetOutput(io.Discard)
		c := &configuration.Configuration{Storage: configuration.Storage{
			"inmemory":    configuration.Parameters{},
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
		}}
		c.Log.Level = "panic"
		c.Log.AccessLog.Disabled = true
		app := handlers.NewApp(context.Background(), c)
		r.closers = append(r.closers, app.Shutdown)
		handler = app
	case GoContainerRegistry:
		handler = ggcr.New(ggcr.WithReferrersSupport(true), ggcr.Logger(log.New(io.Discard, "", 0)))
	default:
		return nil, fmt.Errorf("unknown kind of registry %q", kind)
	}
	r.back = httptest.NewServer(handler)
	r.Backend = r.back.URL
	r.startFront(r.counted(http.StripPrefix(r.o.prefix, r.faulty(r.authorized(handler)))))
	return r, nil
}

func (r *Registry) startFront(handler http.Handler) {
	r.front = httptest.NewUnstartedServer(handler)
	r.front.Config.ConnState = r.connected
	r.front.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that try TLS first
	if r.o.tls {
		r.front.TLS = &tls.Config{}
		if r.o.clientCert {
			r.front.TLS.ClientAuth = tls.RequireAnyClientCert
		}
		if r.o.http2 {
			r.front.EnableHTTP2, r.front.TLS.NextProtos = true, []string{"h2", "http/1.1"}
		}
		r.front.StartTLS()
	} else {
		r.front.Start()
	}
	r.Host = r.front.Listener.Addr().(*net.TCPAddr).String()
}

// Close ends the registry.
func (r *Registry) Close() error {
	r.front.CloseClientConnections()
	r.front.Close()
	r.back.Close()
	var first error
	for _, c := range r.closers {
		if err := c(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Disconnect closes all connections of clients.
func (r *Registry) Disconnect() { r.front.CloseClientConnections() }

// URL returns the front's address with its scheme.
func (r *Registry) URL() string { return r.front.URL }

// Certificate returns the front's certificate, PEM-encoded by the caller.
func (r *Registry) Certificate() []byte { return r.front.Certificate().Raw }

// Fail sets the fault; nil ends it.
func (r *Registry) Fail(fault Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = fault
}

func (r *Registry) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		fault := r.fault
		r.mu.Unlock()
		if fault == nil || !fault(w, q) {
			next.ServeHTTP(w, q)
		}
	})
}

// ReferrersFail is a fault: the referrers endpoint answers with the code.
func ReferrersFail(code int) Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		w.WriteHeader(code)
		return true
	}
}
