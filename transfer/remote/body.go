package remote

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
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
// used again, and closes it.
func discard(rc io.ReadCloser) {
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
	var in io.Reader = resp.Body
	switch encoding := strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		// Asked for identity, some proxies compress all the same. gzip's
		// window is 32 KiB, so the limit on what comes out bounds it.
		zr, err := gzip.NewReader(io.LimitReader(resp.Body, limit+1))
		if err != nil {
			return nil, fmt.Errorf("gzip-encoded answer: %w", err)
		}
		defer zr.Close()
		in = zr
	default:
		return nil, fmt.Errorf("content encoding %q, where identity was asked for: %w", encoding, errdefs.ErrInvalidArgument)
	}
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

// watched is a streamed body that must keep moving.
type watched struct {
	io.ReadCloser
	mu    sync.Mutex
	bytes int64 // since the timer was set
	timer *time.Timer
}

// watch ends a body that delivers less than limits.StallBytes in limits.Stall.
func (r *Repository) watch(b *body) io.ReadCloser {
	w := &watched{ReadCloser: b}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(r.limits.Stall, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.bytes < r.limits.StallBytes {
			b.cancel(timeoutError{fmt.Sprintf("too slow: %d bytes in %s, where %d are the least", w.bytes, r.limits.Stall, r.limits.StallBytes)})
			return
		}
		w.bytes = 0
		w.timer.Reset(r.limits.Stall)
	})
	return w
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.mu.Lock()
	w.bytes += int64(n)
	w.mu.Unlock()
	return n, err
}

func (w *watched) Close() error {
	w.mu.Lock()
	w.timer.Stop()
	w.mu.Unlock()
	return w.ReadCloser.Close()
}
