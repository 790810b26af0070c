package registry

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// body ends its request when it is closed, and says why the request ended where
// a limit ended it.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// discard reads what is left of a small answer, so that its connection can be
// used again, and closes it. It does not wait for a body that does not come.
func discard(rc io.ReadCloser) {
	if b, ok := rc.(*body); ok {
		limit := time.AfterFunc(time.Second, func() { b.cancel(nil) })
		defer limit.Stop()
	}
	_, _ = io.CopyN(io.Discard, rc, 4<<10)
	rc.Close()
}

// readAll reads an answer whole, of at most limit bytes decoded, within the time
// that one request has.
func (r *Repository) readAll(resp *http.Response, limit int64) ([]byte, error) {
	if b, ok := resp.Body.(*body); ok {
		deadline := time.AfterFunc(r.limits.Request, func() { b.cancel(errTimeout(r.limits.Request, "body")) })
		defer deadline.Stop()
	}
	if resp.ContentLength > limit {
		return nil, tooLarge(limit, fmt.Sprintf("announces %d bytes", resp.ContentLength))
	}
	data, err := readLimited(resp.Body, limit)
	if err != nil {
		return nil, err
	}
	switch encoding := strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
		return data, nil
	case "gzip", "x-gzip":
		// Asked for identity, some proxies compress all the same. gzip's
		// window is 32 KiB, so the limit on what comes out bounds it.
		zr, err := gzip.NewReader(bytes.NewReader(data))
		if err == nil {
			data, err = readLimited(zr, limit)
		}
		if err != nil && !errors.Is(err, ErrTooLarge) {
			return nil, fmt.Errorf("gzip-encoded answer: %v: %w", err, errdefs.ErrInvalidArgument) //nolint:errorlint // a body that ends early must not pass for a broken connection
		}
		return data, err
	default:
		return nil, fmt.Errorf("content encoding %q, where identity was asked for: %w", encoding, errdefs.ErrInvalidArgument)
	}
}

func readLimited(in io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, tooLarge(limit, "holds more")
	}
	return data, nil
}

// ErrTooLarge marks an answer that is larger than its limit. It is an
// errdefs.ErrResourceExhausted.
var ErrTooLarge = fmt.Errorf("answer too large: %w", errdefs.ErrResourceExhausted)

func tooLarge(limit int64, what string) error {
	return fmt.Errorf("%w: limit is %d bytes, the answer %s", ErrTooLarge, limit, what)
}

// timeoutError says which limit of time ended a request.
type timeoutError struct{ text string }

func (e timeoutError) Error() string { return e.text }
func (e timeoutError) Unwrap() error { return context.DeadlineExceeded }

func errTimeout(after time.Duration, part string) error {
	return timeoutError{fmt.Sprintf("no %s within %s", part, after)}
}

// watched is a streamed body that must keep moving while it is read: in each
// Stall of waiting for it, StallBytes must come. What its reader does in between
// does not count. It is read by one goroutine.
type watched struct {
	*body
	limits Limits
	waited time.Duration // in this window
	bytes  int64         // that came in it
}

func (w *watched) Read(p []byte) (int, error) {
	left := w.limits.Stall - w.waited
	if w.bytes >= w.limits.StallBytes {
		left += w.limits.Stall // this window has its bytes
	}
	bytes := w.bytes
	limit := time.AfterFunc(left, func() {
		w.cancel(timeoutError{fmt.Sprintf("too slow: %d bytes in %s, where %d are the least", bytes, w.limits.Stall, w.limits.StallBytes)})
	})
	began := time.Now()
	n, err := w.body.Read(p)
	limit.Stop()
	w.waited += time.Since(began)
	w.bytes += int64(n)
	if w.waited >= w.limits.Stall {
		w.waited, w.bytes = 0, 0
	}
	return n, err
}
