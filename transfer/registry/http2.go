package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// roundTrip sends the request. One of the image that HTTP/2 breaks before its answer is sent as
// containerd would have sent it: a server's HTTP/2 may be broken, and a request of ours that the server,
// or a firewall, cannot stand may have ended the connection that both share.
func (t *transport) roundTrip(req *http.Request) (*http.Response, error) {
	chosen := t.choose(req)
	if chosen != t.shared || isOurs(req.Context()) || !mayRepeat(req) {
		return asCut(chosen.RoundTrip(req))
	}
	var http2 atomic.Bool
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		c, ok := info.Conn.(*tls.Conn)
		http2.Store(ok && c.ConnectionState().NegotiatedProtocol == "h2")
	}})
	resp, err := chosen.RoundTrip(req.WithContext(ctx))
	var timeout interface{ Timeout() bool }
	if err == nil || !http2.Load() || ctx.Err() != nil || errors.Is(err, errDead) || errors.As(err, &timeout) && timeout.Timeout() {
		return asCut(resp, err)
	}
	return t.separate.RoundTrip(repeated(req))
}

// asCut has the body of an HTTP/2 answer end as that of HTTP/1.1 does where it breaks: after
// io.ErrUnexpectedEOF, and no other error, containerd's fetcher reads on with another request.
func asCut(resp *http.Response, err error) (*http.Response, error) {
	if err == nil && resp.ProtoMajor == 2 {
		resp.Body = cutBody{resp.Body, resp.Request.Context()}
	}
	return resp, err
}

type cutBody struct {
	io.ReadCloser
	ctx context.Context
}

func (b cutBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() == nil {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
