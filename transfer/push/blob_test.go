package push

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// unaskedWriter is containerd's writer to a request that was canceled before it asked for
// bytes: a write waits for that, and for Close alone beside it.
type unaskedWriter struct {
	content.Writer
	closed chan struct{}
}

func (w *unaskedWriter) Write([]byte) (int, error) {
	<-w.closed
	return 0, io.ErrClosedPipe
}

func (w *unaskedWriter) Close() error {
	close(w.closed)
	return nil
}

type unaskedPusher struct{ w *unaskedWriter }

func (p unaskedPusher) Push(context.Context, ocispec.Descriptor) (content.Writer, error) {
	return p.w, nil
}

// An upload that is canceled ends, even if its request never asked for a byte.
func TestCanceledUploadEnds(t *testing.T) {
	defer func(d time.Duration) { unasked = d }(unasked)
	unasked = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	u := &upload{p: &pusher{Config: Config{Blobs: unaskedPusher{&unaskedWriter{closed: make(chan struct{})}}}}, moves: func() {}}
	cw, err := u.Push(ctx, ocispec.Descriptor{MediaType: "application/octet-stream", Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		_, err := cw.Write([]byte("x"))
		written <- err
	}()
	cancel()
	select {
	case err := <-written:
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the write goes on")
	}
}
