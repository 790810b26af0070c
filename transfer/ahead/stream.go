package ahead

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

// stream is a layer that is open before it is asked for. It holds a download slot while
// its request is on its way or its body is open, as the pull's own fetcher would.
type stream struct {
	desc   ocispec.Descriptor
	slots  *semaphore.Weighted // nil where there is no limit
	cancel context.CancelFunc
	ended  func()

	opened chan struct{} // closed when content is set
	// content reads and seeks as containerd's fetcher does. It is nil where the request failed.
	content io.ReadCloser
}

func (s *stream) tryAcquire() bool { return s.slots == nil || s.slots.TryAcquire(1) }

func (s *stream) release() {
	if s.slots != nil {
		s.slots.Release(1)
	}
}

// open makes the request and waits for the headers of its answer. An error is nobody's: who
// fetches the layer makes a request of their own.
func (s *stream) open(ctx context.Context, opener transfer.Fetcher) {
	defer close(s.opened)
	content, err := opener.Fetch(ctx, s.desc)
	if err != nil {
		return
	}
	// containerd's fetcher makes its request when it is first read. A read of no bytes leaves the
	// body where it is.
	if _, err := content.Read(nil); err != nil {
		content.Close()
		return
	}
	s.content = content
}

// close ends a stream that nobody has taken.
func (s *stream) close() {
	s.cancel()
	<-s.opened
	if s.content != nil {
		s.content.Close()
	}
	s.release()
	s.ended()
}

// take waits for the headers and hands over the stream, which ends with the context. again fetches
// the layer anew. The reader is nil where the request failed.
func (s *stream) take(ctx context.Context, again func() (io.ReadCloser, error)) io.ReadCloser {
	stop := context.AfterFunc(ctx, s.cancel)
	<-s.opened
	if s.content == nil {
		stop()
		s.close()
		return nil
	}
	return &reader{ctx: ctx, content: s.content, again: again, letGo: sync.OnceFunc(func() {
		stop()
		s.cancel()
		s.release()
		s.ended()
	})}
}

// reader is a stream that was taken, or from its first seek on what the pull's own fetcher
// gave in its place. Like that one's it is not safe for concurrent use.
type reader struct {
	ctx     context.Context
	content io.ReadCloser
	again   func() (io.ReadCloser, error) // nil once it was called
	letGo   func()                        // of the stream and its slot
	began   bool                          // bytes were read
}

var _ io.ReadSeekCloser = (*reader)(nil)

// Read implements io.Reader. The slot is free from the end on: what follows, writing the
// layer, is no download. A stream that broke before it was read is no error.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.content.Read(p)
	r.began = r.began || n > 0
	switch {
	case err == nil || r.again == nil:
	case errors.Is(err, io.EOF):
		r.letGo()
	case !r.began && r.ctx.Err() == nil:
		if err := r.fetchAgain(); err != nil {
			return 0, err
		}
		return r.content.Read(p)
	}
	return n, err
}

// Seek implements io.Seeker: containerd seeks to where an interrupted write ended, or to
// the start to write again.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, fmt.Errorf("only an offset from the start is known: %w", errdefs.ErrNotImplemented)
	}
	if r.again != nil {
		if err := r.fetchAgain(); err != nil {
			return 0, err
		}
	}
	seeker, ok := r.content.(io.Seeker)
	if !ok {
		return 0, fmt.Errorf("the content cannot be read from another place: %w", errdefs.ErrUnavailable)
	}
	return seeker.Seek(offset, whence)
}

func (r *reader) fetchAgain() error {
	r.content.Close()
	r.letGo()
	content, err := r.again()
	if err != nil {
		return err
	}
	r.content, r.again = content, nil
	return nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	err := r.content.Close()
	r.letGo()
	return err
}
