package gather

import (
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// progressInterval is how often a stream reports at most.
const progressInterval = 100 * time.Millisecond

// event is progress of content, shown beneath its parent: a referrer beneath its
// subject, a blob beneath its referrer.
type event struct {
	what         string
	desc, parent ocispec.Descriptor
	bytes        int64
}

// report tells the client. Clients draw a tree by name, and ctr follows it
// without end where it has a circle; so a manifest is shown once its subject has
// been verified, and blobs that claim to be manifests are not shown. Digests make
// circles of subjects impossible; but an index lists what it refers to where the
// image's own index does, so that parts of the image are shown by its pull alone.
func (g *Gather) report(events ...event) {
	if g.config.Progress == nil {
		return
	}
	for _, e := range events {
		if artifact.IsReferrer(e.desc.MediaType) && e.what != "complete" {
			continue
		}
		desc := artifact.Plain(e.desc)
		g.config.Progress(transfer.Progress{
			Event:    e.what,
			Name:     remotes.MakeRefKey(g.ctx, desc),
			Parents:  []string{remotes.MakeRefKey(g.ctx, artifact.Plain(e.parent))},
			Progress: e.bytes,
			Total:    desc.Size,
			Desc:     &desc,
		})
	}
}

// progressReader reports while a blob streams.
type progressReader struct {
	io.Reader
	g            *Gather
	desc, parent ocispec.Descriptor
	bytes        int64
	next         time.Time
}

func (r *progressReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.bytes += int64(n)
	if now := time.Now(); n > 0 && now.After(r.next) {
		r.next = now.Add(progressInterval)
		r.g.report(event{"downloading", r.desc, r.parent, min(r.bytes, r.desc.Size)})
	}
	return n, err
}
