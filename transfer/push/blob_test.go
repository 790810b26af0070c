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

// blockedWriter is containerd's writer to a request that was canceled before it asked for
// bytes: a write waits for that, and for Close alone beside it.
type blockedWriter struct {
	content.Writer
	closed chan struct{}
}

func (w *blockedWriter) Write([]byte) (int, error) {
	<-w.closed
	return 0, io.ErrClosedPipe
}

func (w *blockedWriter) Close() error {
	close(w.closed)
	return nil
}

type blockedPusher struct{ w *blockedWriter }

func (p blockedPusher) Push(context.Context, ocispec.Descriptor) (content.Writer, error) {
	return p.w, nil
}

// An upload that is canceled ends, even if its request never asked for a byte.
func TestCanceledUploadEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	u := &upload{p: &pusher{config: Config{Blobs: blockedPusher{&blockedWriter{closed: make(chan struct{})}}}}, moves: func() {}, unblockAfter: time.Millisecond}
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
