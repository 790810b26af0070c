package gather

import (
	"context"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// openIngest locks the content's ingest: of several pulls that want it, one fetches.
// errdefs.ErrAlreadyExists says that it is there, and under this pull's lease.
func (g *Gather) openIngest(desc ocispec.Descriptor) (content.Writer, error) {
	ref := remotes.MakeRefKey(g.ctx, desc)
	cw, err := content.OpenWriter(g.ctx, g.config.Store, content.WithRef(ref), content.WithDescriptor(desc))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, fmt.Errorf("open ingest %s: %w", ref, err)
	}
	return cw, err
}

// complete reports whether an ingest needs nothing but to be committed: another namespace
// holds the content, and the store shares it, or a daemon that was killed had
// received all of it. Its length alone says nothing: those bytes may be wrong. (The
// store counts in sha256 what it has received; of other algorithms it is fetched
// anew.)
func complete(cw content.Writer, desc ocispec.Descriptor) bool {
	st, err := cw.Status()
	return err == nil && st.Offset == desc.Size && cw.Digest() == desc.Digest
}

// write commits an ingest with labels. One that is not complete is filled first. Where that
// fails the ingest is removed: one that holds wrong bytes would fail every later commit.
func (g *Gather) write(cw content.Writer, desc ocispec.Descriptor, childLabels map[string]string, fill func(*writer) error) (err error) {
	ref := remotes.MakeRefKey(g.ctx, desc)
	defer func() {
		if err == nil {
			err = cw.Close()
			return
		}
		// The ingest is removed while it is locked: another pull may wait for
		// it, and would lose what it wrote.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(g.ctx), 10*time.Second)
		defer cancel()
		if abort := g.config.Store.Abort(ctx, ref); abort != nil && !errdefs.IsNotFound(abort) {
			err = fmt.Errorf("%w (and its ingest %s stays: %w)", err, ref, abort)
		}
		_ = cw.Close() // of a file that is gone
	}()
	if !complete(cw, desc) {
		if err := fill(&writer{cw}); err != nil {
			return err
		}
	}
	all := maps.Clone(childLabels)
	if all == nil {
		all = map[string]string{}
	}
	g.source.add(all, nil)
	err = cw.Commit(g.ctx, desc.Size, desc.Digest, content.WithLabels(all))
	if errdefs.IsAlreadyExists(err) {
		return g.relabel(desc, childLabels)
	}
	if err != nil {
		return fmt.Errorf("commit %s: %w", desc.Digest, err)
	}
	g.written.Add(desc.Size)
	return nil
}

// relabel adds labels to content that is there already.
func (g *Gather) relabel(desc ocispec.Descriptor, childLabels map[string]string) error {
	return g.config.Labeler.Change(g.ctx, desc.Digest, func(info content.Info) (map[string]string, error) {
		if info.Size != desc.Size {
			return nil, fmt.Errorf("%s is stored with %d bytes, %d are said of it: %w", desc.Digest, info.Size, desc.Size, errdefs.ErrInvalidArgument)
		}
		add := map[string]string{}
		maps.Copy(add, childLabels)
		g.source.add(add, info.Labels)
		return add, nil
	})
}

// writer fills an ingest from its start, whatever an earlier pull left in it.
type writer struct{ content.Writer }

func (w *writer) restart(data []byte) error {
	return w.stream(strings.NewReader(string(data)), int64(len(data)))
}

// stream copies size bytes; one more is an error, as is one less.
func (w *writer) stream(r io.Reader, size int64) error {
	// At offset 0 as well: the store starts over with an ingest whose total
	// size is not the expected one, and leaves its bytes in place.
	if err := w.Truncate(0); err != nil {
		return err
	}
	n, err := io.Copy(w.Writer, io.LimitReader(r, size+1))
	switch {
	case err != nil:
		return err
	case n > size:
		return fmt.Errorf("more than the %d bytes expected: %w", size, errdefs.ErrFailedPrecondition)
	case n < size:
		return fmt.Errorf("%d bytes of %d: %w", n, size, io.ErrUnexpectedEOF)
	}
	return nil
}
