package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// closedPort is one that refuses connections and that no one else can take, until it is
// opened.
func closedPort(t *testing.T) (address string, open func() net.Listener) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "closed port")
	t.Cleanup(func() { file.Close() })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: bound.(*syscall.SockaddrInet4).Port}
	return at.String(), func() net.Listener {
		if err := syscall.Listen(fd, 16); err != nil {
			t.Error(err)
		}
		l, err := net.FileListener(file)
		if err != nil {
			t.Error(err)
		}
		return l
	}
}

// dialed is a host that is connected to by dial, which is told which attempt it is.
func dialed(address string, dial func(ctx context.Context, n int) (net.Conn, error)) (docker.RegistryHost, *atomic.Int32) {
	n := new(atomic.Int32)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, int(n.Add(1)))
	}}
	return docker.RegistryHost{Client: &http.Client{Transport: transport}, Scheme: "http", Host: address, Path: "/v2", Capabilities: pullResolve | docker.HostCapabilityPush}, n
}

// A host that refuses connections for a moment, as it restarts, is no host that is down.
func TestRefusedConnectionIsTriedAgain(t *testing.T) {
	for name, ask := range map[string]func(*Repository) error{
		"GET": func(r *Repository) error {
			a, err := r.Get(t.Context(), r.hosts[0], r.URL(r.hosts[0], "referrers", "x"), "*/*")
			if err == nil && string(a.Body) != "served" {
				t.Errorf("answered %q", a.Body)
			}
			return err
		},
		"PUT": func(r *Repository) error {
			_, err := r.PutManifest(t.Context(), r.hosts[0], "v1", ocispec.MediaTypeImageManifest, []byte("body"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			address, open := closedPort(t)
			server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					if body, err := io.ReadAll(r.Body); err != nil || string(body) != "body" {
						t.Errorf("%q came, %v", body, err)
					}
					w.WriteHeader(http.StatusCreated)
					return
				}
				_, _ = w.Write([]byte("served"))
			})}
			defer server.Close()
			host, n := dialed(address, func(ctx context.Context, n int) (net.Conn, error) {
				if n == dials {
					l := open()
					go func() { _ = server.Serve(l) }()
				}
				return (&net.Dialer{}).DialContext(ctx, "tcp", address)
			})
			r := newRepository(t, address, quick, host)
			codes := []int{}
			r.OnRequest(func(_ Operation, code int) { codes = append(codes, code) })
			if err := ask(r); err != nil {
				t.Error(err)
			}
			if got := n.Load(); got != dials || len(codes) != dials || codes[0] != 0 || codes[dials-1] == 0 {
				t.Errorf("connected %d times, counted as %v, want %d", got, codes, dials)
			}
			if err := r.hosts[0].Down(); err != nil {
				t.Errorf("it answered, and is down: %v", err)
			}
		})
	}
}

// TestDials has how often each failure to connect is tried before the host is down, and
// that it is not tried again in the pull.
func TestDials(t *testing.T) {
	dialError := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	system := func(errno syscall.Errno) error { return dialError(os.NewSyscallError("connect", errno)) }
	for _, tc := range []struct {
		name     string
		err      error
		attempts int // the limit; 0 is that of the tests
		want     int32
	}{
		{"refused", system(syscall.ECONNREFUSED), 0, dials},
		{"reset", system(syscall.ECONNRESET), 0, dials},
		{"refused by the proxy", &net.OpError{Op: "proxyconnect", Net: "tcp", Err: system(syscall.ECONNREFUSED)}, 0, dials},
		{"refused, and one attempt allowed", system(syscall.ECONNREFUSED), 1, 1},
		{"refused, and more attempts allowed", system(syscall.ECONNREFUSED), 5, dials},
		{"timed out", system(syscall.ETIMEDOUT), 0, 1},
		{"no route", system(syscall.EHOSTUNREACH), 0, 1},
		{"the dialer's time is over", dialError(os.ErrDeadlineExceeded), 0, 1},
		{"the resolver fails for now", dialError(&net.DNSError{Err: "server misbehaving", IsTemporary: true}), 0, dials},
		{"the resolver does not answer", dialError(&net.DNSError{Err: "i/o timeout", IsTemporary: true, IsTimeout: true}), 0, 1},
		{"no such name", dialError(&net.DNSError{Err: "no such host", IsNotFound: true}), 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			host, n := dialed("registry.test", func(context.Context, int) (net.Conn, error) { return nil, tc.err })
			limits := quick
			if tc.attempts > 0 {
				limits.Attempts = tc.attempts
			}
			r := newRepository(t, "registry.test", limits, host)
			for range 2 {
				if _, err := fetch(t, r, "/a"); err == nil || r.hosts[0].Down() == nil {
					t.Errorf("%v, want a host that is down", err)
				}
			}
			if got := n.Load(); got != tc.want {
				t.Errorf("connected %d times, want %d", got, tc.want)
			}
		})
	}
}

// The waits between attempts to connect are within the request's time.
func TestDialsEndWithTheRequest(t *testing.T) {
	host, n := dialed("registry.test", func(context.Context, int) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	})
	limits := quick
	limits.Request, limits.Backoff = short, time.Hour
	r := newRepository(t, "registry.test", limits, host)
	start := time.Now()
	_, err := fetch(t, r, "/a")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no headers within") {
		t.Errorf("%v, want the request's time to be over", err)
	}
	if took := time.Since(start); took < short || took > 20*short {
		t.Errorf("took %s, want about %s", took, short)
	}
	if n.Load() != 1 || r.hosts[0].Down() == nil {
		t.Errorf("connected %d times, down is %v, want once and a host that is down", n.Load(), r.hosts[0].Down())
	}
}
