//go:build linux

package nri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/containerd/nri/pkg/stub"
	"golang.org/x/sys/unix"

	"github.com/transfer-referrers/transfer-referrers/transfer/gate"
)

const (
	// minWait and maxWait are how long a lost connection waits to be made again. A socket of
	// this process answers in microseconds.
	minWait = 10 * time.Millisecond
	maxWait = 250 * time.Millisecond
	// maxIdle is the same where nothing has answered for idleAfter: CRI is not there.
	maxIdle   = 5 * time.Second
	idleAfter = time.Minute
	// maxRegistration is how long NRI may take to accept the plugin; its own limit is 5 s.
	maxRegistration = 10 * time.Second
	// namespace is CRI's. NRI knows no others.
	namespace = "k8s.io"
)

// connector keeps the gate connected to NRI until it is closed.
type connector struct {
	gate   *gate.Gate
	path   string // of NRI's socket
	status string

	stop context.CancelFunc
	done chan struct{}
	once sync.Once
}

var _ gate.Connector = (*connector)(nil)

// GateStatus implements gate.Connector.
func (c *connector) GateStatus() string { return c.status }

// start connects until Close is called.
func (c *connector) start(ctx context.Context) {
	ctx, c.stop = context.WithCancel(namespaces.WithNamespace(ctx, namespace))
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		c.run(ctx)
	}()
	go c.gate.Prepare(ctx)
}

// Close implements io.Closer. containerd calls it when it no longer serves clients: it closes
// its servers, which it initializes last, first.
func (c *connector) Close() error {
	c.once.Do(func() {
		if c.stop != nil {
			c.stop()
			<-c.done
		}
	})
	return nil
}

func (c *connector) run(ctx context.Context) {
	wait, last := minWait, time.Now()
	for ctx.Err() == nil {
		was, err := c.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if was {
			wait, last = minWait, time.Now()
			log.G(ctx).WithError(err).Warn("referrers: the gate has lost its connection to NRI, and makes another")
		} else {
			log.G(ctx).WithError(err).Debug("referrers: the gate is not connected to NRI yet")
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		limit := maxWait
		if time.Since(last) > idleAfter {
			limit = maxIdle
		}
		wait = min(2*wait, limit)
	}
}

var errLost = errors.New("NRI has closed it")

// serve connects, and judges containers until the connection is lost. It reports whether there
// was one.
func (c *connector) serve(ctx context.Context) (was bool, err error) {
	dialed, err := dial(ctx, c.path)
	if err != nil {
		return false, err
	}
	conn := &watched{Conn: dialed, closed: make(chan struct{})}
	defer func() { _ = conn.Close() }() // NRI's end has closed it, or sees that
	lost := conn.closed
	h := &handler{gate: c.gate, synchronized: make(chan struct{})}
	s, err := stub.New(h, stub.WithPluginName(Name), stub.WithPluginIdx(Index), stub.WithConnection(conn),
		stub.WithOnClose(func() { _ = conn.Close() }), stub.WithLogger(quiet{}))
	if err != nil {
		return false, err
	}
	started := make(chan error, 1)
	go func() { started <- s.Start(ctx) }() // it never returns where NRI accepts the plugin and is gone then
	select {
	case err := <-started:
		if err != nil {
			return false, err
		}
	case <-lost:
		return false, errLost
	case <-time.After(maxRegistration):
		return false, fmt.Errorf("it has not accepted the plugin within %s", maxRegistration)
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer s.Stop()
	select {
	case <-h.synchronized:
	case <-lost:
		return false, errLost
	case <-ctx.Done():
		return false, ctx.Err()
	}
	c.gate.Connected(true)
	defer c.gate.Connected(false)
	log.G(ctx).Infof("referrers: the gate is connected to NRI as plugin %s-%s: containers are judged (gate = %q)", Index, Name, c.gate.Mode())
	select {
	case <-lost:
		return true, errLost
	case <-ctx.Done():
		return true, ctx.Err()
	}
}

// watched is a connection that tells when it was closed, as it is once it can be read no more.
type watched struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
}

func (w *watched) Close() error {
	defer w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

// dial connects to the socket if this process serves it: another daemon's containers have their
// images in another store.
func dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	pid, err := peer(conn.(*net.UnixConn))
	if err == nil && pid != os.Getpid() {
		err = fmt.Errorf("%s is served by process %d, and not by this containerd, of process %d: give each containerd a socket_path in [plugins.%q]", path, pid, os.Getpid(), nriTable)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// peer returns the process that listens on the other end.
func peer(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, fmt.Errorf("ask who serves NRI's socket: %w", failed)
	}
	return int(cred.Pid), nil
}

// quiet is a log of NRI's that says what it does to those who debug.
type quiet struct{}

func (quiet) Debugf(ctx context.Context, format string, args ...any) { say(ctx, format, args...) }
func (quiet) Infof(ctx context.Context, format string, args ...any)  { say(ctx, format, args...) }
func (quiet) Warnf(ctx context.Context, format string, args ...any)  { say(ctx, format, args...) }
func (quiet) Errorf(ctx context.Context, format string, args ...any) { say(ctx, format, args...) }

func say(ctx context.Context, format string, args ...any) {
	log.G(ctx).Debugf("referrers: the gate's NRI stub: "+format, args...)
}
