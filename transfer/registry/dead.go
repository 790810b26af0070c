package registry

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// quietTime is how long nothing went over a connection that may have died since.
	quietTime = time.Second
	// deadTime is how long what is sent over one may stay without its peer's acknowledgement,
	// and deadAgain how soon that is looked at again.
	deadTime, deadAgain = time.Second, 250 * time.Millisecond
)

// errDead ends what waits for an answer on a connection that turned out to be dead.
var errDead = errors.New("the connection is dead: nobody acknowledges what is sent over it")

// checkedConn notices when it is used again that it died while it was idle: a middlebox
// forgot it, or the node has moved to another network. containerd has new connections for each
// pull, and would not meet it. A peer that is slow to answer acknowledges what it is asked.
type checkedConn struct {
	net.Conn
	died func()

	mu    sync.Mutex
	last  time.Time // something went over it
	check *time.Timer
	dead  bool
}

func (c *checkedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.check == nil && time.Since(c.last) > quietTime {
		c.check = time.AfterFunc(deadTime, c.judge)
	}
	c.last = time.Now()
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *checkedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 {
		c.last = time.Now()
	}
	if c.check != nil {
		c.check.Stop()
		c.check = nil
	}
	if c.dead && err != nil {
		err = errDead
	}
	return n, err
}

// judge ends the connection if it is dead, and looks again while that is not known.
func (c *checkedConn) judge() {
	waits, dead := unacknowledged(c.Conn)
	c.mu.Lock()
	switch {
	case c.check == nil: // something came
		dead = false
	case dead:
		c.dead = true
	case waits:
		c.check.Reset(deadAgain)
	default:
		c.check = nil
	}
	c.mu.Unlock()
	if dead {
		c.died()
		_ = c.Close()
	}
}

// mayRepeat reports whether a request can be made again that a broken connection swallowed.
func mayRepeat(req *http.Request) bool {
	if _, ok := req.Header[idempotent]; ok && req.GetBody != nil {
		return true
	}
	return (req.Method == http.MethodGet || req.Method == http.MethodHead) && (req.Body == nil || req.Body == http.NoBody)
}

// repeated returns the request with its body from the beginning.
func repeated(req *http.Request) *http.Request {
	if req.GetBody == nil {
		return req
	}
	again := *req
	again.Body, _ = req.GetBody() // of bytes in memory: cannot fail
	return &again
}

// idempotent is the header of a request that may be made again whatever its method. Without a
// value it is not sent (net/http.Transport).
const idempotent = "Idempotency-Key"
