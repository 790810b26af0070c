package push

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// stall is how long an upload may stand still. It covers what goes before, a token
// and the registry's search for the blob, and its check afterwards.
const stall = time.Minute

// blobs are those that this push has met; referrers share some.
type blobs map[blobKey]*blob

// blobKey tells blobs apart as descriptors do: one that lies about a size must not fail for
// the others.
type blobKey struct {
	digest digest.Digest
	size   int64
}

type blob struct {
	once sync.Once
	err  error
}

// blob brings one blob to the registry, once a push.
func (p *pusher) blob(ctx context.Context, parent, desc ocispec.Descriptor) error {
	p.mu.Lock()
	key := blobKey{desc.Digest, desc.Size}
	b := p.blobs[key]
	if b == nil {
		b = &blob{}
		p.blobs[key] = b
	}
	p.mu.Unlock()
	b.once.Do(func() { b.err = p.upload(ctx, parent, desc) })
	return b.err
}

// upload has containerd's pusher look for the blob, mount it from a repository that
// the store says it came from, or send it.
func (p *pusher) upload(ctx context.Context, parent, desc ocispec.Descriptor) error {
	info, err := p.config.Store.Info(ctx, desc.Digest)
	if errdefs.IsNotFound(err) {
		return notStored(desc.Digest, err)
	}
	if err != nil {
		return err
	}
	if info.Size != desc.Size {
		return fmt.Errorf("%s is stored with %d bytes, %d are said of it: %w", desc.Digest, info.Size, desc.Size, errdefs.ErrInvalidArgument)
	}
	desc.Annotations = sources(info.Labels)
	if artifact.IsReferrer(desc.MediaType) {
		// containerd's pusher puts what has the type of a manifest where manifests lie.
		desc.MediaType = "application/octet-stream"
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(stall, func() {
		cancel(fmt.Errorf("the upload stood still for %s: %w", stall, context.DeadlineExceeded))
	})
	defer watch.Stop()
	p.report("waiting", desc, parent, 0)
	_, err = remotes.PushHandler(&upload{p: p, parent: parent, moves: func() { watch.Reset(stall) }, unblockAfter: unblockAfter}, p.config.Store)(ctx, desc)
	if err != nil {
		p.report("failed", desc, parent, 0)
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	return nil
}

// sources are the labels by which containerd's pusher finds a repository to mount
// from, as it takes them: as annotations.
func sources(all map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range all {
		if strings.HasPrefix(key, labels.LabelDistributionSource+".") {
			out[key] = value
		}
	}
	return out
}

// upload is containerd's pusher, watched.
type upload struct {
	p            *pusher
	parent       ocispec.Descriptor
	moves        func()
	unblockAfter time.Duration
}

// Push implements remotes.Pusher.
func (u *upload) Push(ctx context.Context, desc ocispec.Descriptor) (cw content.Writer, err error) {
	if in, ok := u.p.config.Blobs.(content.Ingester); ok {
		cw, err = content.OpenWriter(ctx, in, content.WithRef(remotes.MakeRefKey(ctx, desc)), content.WithDescriptor(desc))
	} else {
		cw, err = u.p.config.Blobs.Push(ctx, desc)
	}
	u.moves()
	if errdefs.IsAlreadyExists(err) {
		u.p.report("already exists", desc, u.parent, desc.Size)
	}
	if err != nil {
		return nil, err
	}
	w := &uploadWriter{Writer: cw, upload: u, desc: desc}
	w.end = context.AfterFunc(ctx, func() { time.AfterFunc(u.unblockAfter, w.unblock) })
	return w, nil
}

// unblockAfter is how long a first write goes on once its upload has been canceled.
const unblockAfter = 5 * time.Second

type uploadWriter struct {
	content.Writer
	*upload
	desc  ocispec.Descriptor
	bytes int64
	next  time.Time
	end   func() bool // of the watch over the first write
	asked atomic.Bool // the request has asked for bytes, or there is no more to write
}

// unblock ends a first write that nothing else would: containerd's writer waits until its
// request asks for bytes, and one that was canceled before that never does.
func (w *uploadWriter) unblock() {
	if !w.asked.Swap(true) {
		_ = w.Writer.Close()
	}
}

// Close implements io.Closer.
func (w *uploadWriter) Close() error {
	w.end()
	w.asked.Store(true)
	return w.Writer.Close()
}

func (w *uploadWriter) Write(data []byte) (int, error) {
	n, err := w.Writer.Write(data)
	w.asked.Store(true)
	w.moves()
	w.bytes += int64(n)
	if errors.Is(err, content.ErrReset) {
		w.bytes = 0
	}
	if now := time.Now(); n > 0 && now.After(w.next) {
		w.next = now.Add(progressInterval)
		w.p.report("uploading", w.desc, w.parent, min(w.bytes, w.desc.Size))
	}
	return n, err
}

func (w *uploadWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	err := w.Writer.Commit(ctx, size, expected, opts...)
	w.moves()
	switch {
	case errors.Is(err, content.ErrReset): // it is sent again
		w.bytes = 0
	case err == nil, errdefs.IsAlreadyExists(err):
		w.p.report("complete", w.desc, w.parent, w.desc.Size)
	}
	return err
}
