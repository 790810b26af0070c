// Package link stands between a client and a server on one machine for the network
// that loopback is not: a TCP proxy on which every byte takes half a round trip in
// each direction, and on which connecting takes a round trip as well. Handshakes, of
// TCP and of TLS, thus cost what they cost on a real link of that length. Its
// bandwidth has no limit, and it loses nothing.
package link

import (
	"errors"
	"net"
	"sync"
	"time"
)

// Link is a listening proxy. It must be closed.
type Link struct {
	// Host is where clients find the server, "127.0.0.1:<port>".
	Host string

	server    string
	roundTrip time.Duration
	listener  net.Listener
	running   sync.WaitGroup

	mu          sync.Mutex
	closed      bool
	connections []Connection
	open        map[net.Conn]bool // both ends
}

// Connection is one that a client opened.
type Connection struct {
	Opened time.Time
	// Remote is the client as the server sees it.
	Remote string
}

// Open starts a link of the round-trip time to the server, "host:port".
func Open(server string, roundTrip time.Duration) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &Link{
		Host: listener.Addr().String(), server: server, roundTrip: roundTrip,
		listener: listener, open: map[net.Conn]bool{},
	}
	l.running.Go(l.accept)
	return l, nil
}

// Connections returns those that clients opened since the link was, in their order.
func (l *Link) Connections() []Connection {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Connection(nil), l.connections...)
}

// Close ends the link and all its connections.
func (l *Link) Close() error {
	err := l.listener.Close()
	l.mu.Lock()
	l.closed = true
	for c := range l.open {
		err = errors.Join(err, ignoreClosed(c.Close()))
	}
	l.mu.Unlock()
	l.running.Wait()
	return err
}

func (l *Link) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		opened := time.Now()
		l.running.Go(func() { l.join(client, opened) })
	}
}

// join carries what client and server say until both have ended. The client's first
// byte leaves once the server has acknowledged the connection, a round trip after it
// was asked for; the server's first one once it knows that it did.
func (l *Link) join(client net.Conn, opened time.Time) {
	defer func() { _ = client.Close() }() // it may be closed already
	server, err := net.Dial("tcp", l.server)
	if err != nil {
		return // and the client finds its connection closed
	}
	defer func() { _ = server.Close() }()
	if !l.add(client, server, opened) {
		return
	}
	defer l.remove(client, server)
	half := l.roundTrip / 2
	var both sync.WaitGroup
	both.Go(func() { pipe(server, client, half, opened.Add(l.roundTrip)) })
	both.Go(func() { pipe(client, server, half, opened.Add(l.roundTrip+half)) })
	both.Wait()
}

// pipe delays one direction. Its end is told like its bytes, half a round trip late.
func pipe(to, from net.Conn, delay time.Duration, notBefore time.Time) {
	if err := carry(to, from, delay, notBefore); err != nil {
		_, _ = to.Close(), from.Close() // it broke, and the other direction with it
		return
	}
	_ = to.(*net.TCPConn).CloseWrite() // fails where the other side is gone
}

func (l *Link) add(client, server net.Conn, opened time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.connections = append(l.connections, Connection{opened, server.LocalAddr().String()})
	l.open[client], l.open[server] = true, true
	return true
}

func (l *Link) remove(client, server net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, client)
	delete(l.open, server)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
